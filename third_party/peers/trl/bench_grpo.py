"""Seconds of a GRPO step with LoRA inside TRL's own GRPOTrainer, on the CPU.

python -m third_party.peers.trl.bench_grpo
"""

import contextlib
import os
import sys
import tempfile
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports: nothing here needs a hub

import datasets
import torch
import transformers
import trl

from third_party.peers import shapes, torch_model

PACKAGES = ("trl", "torch", "transformers", "peft", "accelerate")


def reward(completions: list[str], **columns: Any) -> list[float]:
    """The common reward, in the signature that TRL calls."""
    return shapes.reward(completions)


class TimedTrainer(trl.GRPOTrainer):
    """GRPOTrainer that notes how long sampling, and sampling with scoring, take in each step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.generate_s: list[float] = []
        self.rollout_s: list[float] = []
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        shapes.require(len(prompt_ids), shapes.NUM_PROMPTS * shapes.NUM_SAMPLES, "rows")
        shapes.require(max(map(len, prompt_ids)), shapes.PROMPT_TOKENS, "prompt tokens")
        start = time.perf_counter()
        result = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.generate_s.append(time.perf_counter() - start)
        return result

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.rollout_s.append(time.perf_counter() - start)
        return result


class StepClock(transformers.TrainerCallback):
    """Time from the end of one step to the end of the next: all that a user waits for."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def trainer_args(steps: int, folder: str) -> trl.GRPOConfig:
    """Plain GRPO: one update per rollout, no reference model, float32, no recomputation."""
    rows = shapes.NUM_PROMPTS * shapes.NUM_SAMPLES
    return trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        num_generations=shapes.NUM_SAMPLES,
        max_completion_length=shapes.COMPLETION_TOKENS,
        temperature=1.0,
        top_k=0,
        loss_type="grpo",
        beta=0.0,
        num_iterations=1,
        learning_rate=shapes.LEARNING_RATE,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def main() -> None:
    args = shapes.parse_args(__doc__, repeats=20, warmup=3)
    steps = args.warmup + args.repeats
    clock = StepClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),  # stdout carries the JSON line only
    ):
        trainer = TimedTrainer(
            model=torch_model.model(),
            reward_funcs=reward,
            args=trainer_args(steps, folder),
            train_dataset=datasets.Dataset.from_dict({"prompt": shapes.prompt_texts()}),
            processing_class=torch_model.tokenizer(),
            peft_config=torch_model.lora_config(),
            callbacks=[clock],
        )
        weights = torch_model.trainable(trainer.model)
        shapes.require(sum(p.numel() for p in weights), shapes.LORA_PARAMETERS, "LoRA parameters")
        before = [p.detach().clone() for p in weights]
        trainer.train()
        if all(torch.equal(a, b) for a, b in zip(before, weights, strict=True)):
            raise RuntimeError("training changed no adapter weight: these are not training steps")
    step_s = shapes.gaps(clock.ends)
    shapes.require(len(step_s), steps, "steps")
    rollout_s = trainer.rollout_s
    samples = {
        "step_s": step_s,
        "rollout_s": rollout_s,
        "train_s": [whole - part for whole, part in zip(step_s, rollout_s, strict=True)],
        "generate_s": trainer.generate_s,
    }
    measured = {name: values[args.warmup :] for name, values in samples.items()}
    shapes.print_line("trl", "grpo_lora_step", measured, PACKAGES, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
