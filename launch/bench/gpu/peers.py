"""transformers and peft on the same device, geometry, rows and lengths; random weights."""

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

from distill_jax.forecast import flops
from distill_jax.models.lora import PROJECTIONS
from distill_jax.models.qwen_config import QwenConfig
from launch.bench import roofline
from launch.bench.gpu.lines import note
from launch.bench.steps import BenchSettings, geometry


def transformers(settings: BenchSettings, arm: str) -> None:
    """Notes generation and a LoRA step; where a package is missing, which one."""
    missing = [n for n in ("torch", "transformers", "peft") if importlib.util.find_spec(n) is None]
    if missing:
        note(arm=arm, missing=missing)
        return
    Peers(settings, arm).run()


class Peers:
    """A model of torch, and what is measured on it."""

    def __init__(self, settings: BenchSettings, arm: str):
        import torch  # here, and below: they are no dependencies of a run without this step
        from transformers import Qwen2Config, Qwen2ForCausalLM

        self.settings, self.arm, self.torch = settings, arm, torch
        self.config: QwenConfig = geometry(settings.model)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        known = roofline.peaks(torch.cuda.get_device_name()) if self.device == "cuda" else None
        self.peaks = known or (settings.peak_flops, settings.peak_bandwidth)
        torch.manual_seed(0)
        c = self.config
        made = Qwen2Config(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, num_hidden_layers=c.num_layers,
            intermediate_size=c.intermediate_size, num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads, tie_word_embeddings=c.tie_embeddings,
            max_position_embeddings=4096, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        dtype = getattr(torch, settings.dtype)
        model: Any = Qwen2ForCausalLM(made)
        self.model = model.to(self.device, dtype)
        self.model.generation_config.eos_token_id = None

    def run(self) -> None:
        """A static cache comes last: transformers compiles for it."""
        for rows in self.settings.generate_rows:
            self.generate(rows, "dynamic")
        self.lora_step(4)
        for rows in self.settings.generate_rows:
            self.generate(rows, "static")

    def generate(self, rows: int, cache: str) -> None:
        """Prompts of `rows` rows and all their tokens drawn, nothing to stop at."""
        s, torch = self.settings, self.torch
        prompts = self._tokens(rows, s.prompt_tokens)
        how: dict[str, Any] = {
            "max_new_tokens": s.completion_tokens, "min_new_tokens": s.completion_tokens,
            "do_sample": True, "top_k": 0, "use_cache": True, "pad_token_id": 0,
            "attention_mask": torch.ones_like(prompts), "cache_implementation": cache,
        }  # fmt: skip

        @torch.no_grad()
        def run() -> None:
            self.model.generate(prompts, **how)

        figure = self._timed(run, rows * s.completion_tokens, 1)
        if self.peaks[1]:
            bound = roofline.decode_tokens_per_s(
                self.config, rows, s.prompt_tokens, s.completion_tokens, s.dtype, self.peaks[1]
            )
            figure["roofline_fraction"] = figure["tokens_per_s"] / bound
        self._note(f"generate_{rows}, {cache} cache", figure)

    def lora_step(self, parts: int) -> None:
        """A step on every token in so many parts: logits of all rows would take 10 GB and more."""
        import peft

        s, torch = self.settings, self.torch
        lora = peft.LoraConfig(
            r=s.lora_rank, lora_alpha=2 * s.lora_rank, target_modules=list(PROJECTIONS)
        )
        tuned = peft.get_peft_model(self.model, lora)
        trainable = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-5)
        tokens = self._tokens(s.sft_rows, s.sft_tokens)

        def run() -> None:
            for part in tokens.chunk(parts):
                (tuned(input_ids=part, labels=part, use_cache=False).loss / parts).backward()
            optimizer.step()
            optimizer.zero_grad()

        count = s.sft_rows * s.sft_tokens
        figure = self._timed(run, count, s.repeats)
        if self.peaks[0]:
            work = flops.of_rows(count, count, s.sft_rows)
            figure["mfu"] = flops.update(self.config, work, "lora") / figure["median"]
            figure["mfu"] /= self.peaks[0]
        self._note(f"lora_step, {parts} parts", figure)
        self.model = tuned.unload()

    def _tokens(self, *shape: int) -> Any:
        return self.torch.randint(0, self.config.vocab_size, shape, device=self.device)

    def _timed(self, run: Callable[[], None], tokens: int, repeats: int) -> dict[str, Any]:
        wait = self.torch.cuda.synchronize if self.device == "cuda" else functools.partial(int)
        seconds = []
        for _ in range(1 + repeats):
            begun = time.perf_counter()
            run()
            wait()
            seconds.append(time.perf_counter() - begun)
        rest = seconds[1:]
        median = statistics.median(rest)
        return {
            "median": median, "min": min(rest), "max": max(rest), "n": len(rest),
            "first_call_s": seconds[0], "tokens_per_s": tokens / median,
        }  # fmt: skip

    def _note(self, name: str, figure: dict[str, Any]) -> None:
        cuda = self.device == "cuda"
        peak = self.torch.cuda.max_memory_allocated() if cuda else None
        note(arm=self.arm, figure=name, peak_bytes=peak, **figure)
