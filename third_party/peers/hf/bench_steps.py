"""Seconds of a full and a LoRA training step, of a forward, and tokens per second of generate.

Plain transformers, peft and torch on the CPU, no Trainer around them.

python -m third_party.peers.hf.bench_steps
"""

import os
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports: nothing here needs a hub

import peft
import torch
import transformers

from third_party.peers import shapes, torch_model

PACKAGES = ("torch", "transformers", "peft")


def random_tokens(rows: int, length: int) -> torch.Tensor:
    """int64 [rows, length], the same in every run."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(shapes.VOCAB_SIZE, (rows, length), generator=generator)


def training_step(model: torch.nn.Module) -> Callable[[], None]:
    """Forward with the loss over every token, backward, AdamW update."""
    model.train()
    optimizer = torch.optim.AdamW(torch_model.trainable(model), lr=shapes.LEARNING_RATE)
    tokens = random_tokens(shapes.SFT_ROWS, shapes.SFT_TOKENS)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()

    return run


def forward(model: torch.nn.Module) -> Callable[[], None]:
    """Logits of every token, without gradients."""
    model.eval()
    tokens = random_tokens(shapes.SFT_ROWS, shapes.SFT_TOKENS)

    @torch.no_grad()
    def run() -> None:
        model(input_ids=tokens, use_cache=False)

    return run


def generate(model: torch.nn.Module) -> Callable[[], None]:
    """Sample COMPLETION_TOKENS for each row at temperature 1 with nothing to stop at."""
    model.eval()
    prompts = random_tokens(shapes.GENERATE_ROWS, shapes.PROMPT_TOKENS)
    config = transformers.GenerationConfig(
        max_new_tokens=shapes.COMPLETION_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        eos_token_id=None,
        pad_token_id=shapes.PAD_ID,
    )
    mask = torch.ones_like(prompts)
    length = shapes.PROMPT_TOKENS + shapes.COMPLETION_TOKENS

    @torch.no_grad()
    def run() -> None:
        tokens = model.generate(prompts, attention_mask=mask, generation_config=config)
        shapes.require(tokens.shape[1], length, "generated length")

    return run


def main() -> None:
    args = shapes.parse_args(__doc__, repeats=20, warmup=3)
    adapted = peft.get_peft_model(torch_model.model(), torch_model.lora_config())
    lora_size = sum(p.numel() for p in torch_model.trainable(adapted))
    shapes.require(lora_size, shapes.LORA_PARAMETERS, "LoRA parameters")
    runs = {
        "full_step_s": training_step(torch_model.model()),
        "lora_step_s": training_step(adapted),
        "forward_s": forward(torch_model.model()),
        "generate_s": generate(torch_model.model()),
    }
    samples = {name: shapes.measure(run, args.repeats, args.warmup) for name, run in runs.items()}
    new_tokens = shapes.GENERATE_ROWS * shapes.COMPLETION_TOKENS
    samples["generate_tokens_per_s"] = [new_tokens / s for s in samples["generate_s"]]
    shapes.print_line("hf", "steps", samples, PACKAGES, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
