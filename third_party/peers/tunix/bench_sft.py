"""Seconds of a full and a LoRA training step inside Tunix's own PeftTrainer, on the CPU.

python -m third_party.peers.tunix.bench_sft
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports: nothing here needs a hub

import jax
import numpy as np
import optax
from flax import nnx
from tunix.sft import peft_trainer, utils

from third_party.peers import shapes
from third_party.peers.tunix import tunix_model

PACKAGES = ("google-tunix", "jax", "jaxlib", "flax", "qwix", "optax")


def model_input(batch: peft_trainer.TrainingInput) -> dict[str, Any]:
    """Positions and the causal mask, as Tunix's own examples make them."""
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": utils.build_positions_from_mask(batch.input_mask),
        "attention_mask": utils.make_causal_attn_mask(batch.input_mask),
    }


def step_seconds(model: nnx.Module, steps: int) -> list[float]:
    """Seconds of each of `steps` training steps.

    The clock sits in the data iterator, which the trainer asks once a step; it first waits for
    the weights of the step before, since the trainer itself returns early.
    """
    drawn = np.random.default_rng(1).integers(
        shapes.VOCAB_SIZE, size=(shapes.SFT_ROWS, shapes.SFT_TOKENS), dtype=np.int32
    )
    batch = peft_trainer.TrainingInput(
        input_tokens=drawn, input_mask=np.ones(drawn.shape, dtype=bool)
    )
    ticks: list[float] = []

    def batches() -> Iterator[peft_trainer.TrainingInput]:
        for _ in range(steps):
            jax.block_until_ready(nnx.state(model, nnx.Param))
            ticks.append(time.perf_counter())
            yield batch
        jax.block_until_ready(nnx.state(model, nnx.Param))
        ticks.append(time.perf_counter())

    config = peft_trainer.TrainingConfig(eval_every_n_steps=1_000_000)
    trainer = peft_trainer.PeftTrainer(model, optax.adamw(shapes.LEARNING_RATE), config)
    before = jax.device_get(jax.tree.leaves(nnx.state(model, nnx.Param)))
    trainer.with_gen_model_input_fn(model_input).train(batches())
    after = jax.device_get(jax.tree.leaves(nnx.state(model, nnx.Param)))
    if all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        raise RuntimeError("training changed no weight: these are not training steps")
    return shapes.gaps(ticks)


def main() -> None:
    args = shapes.parse_args(__doc__, repeats=20, warmup=3)
    steps = args.warmup + args.repeats
    with contextlib.redirect_stdout(sys.stderr):  # stdout carries the JSON line only
        samples = {
            "full_step_s": step_seconds(tunix_model.base_model(), steps),
            "lora_step_s": step_seconds(tunix_model.lora_model(), steps),
        }
    measured = {name: values[args.warmup :] for name, values in samples.items()}
    shapes.print_line("tunix", "sft_steps", measured, PACKAGES)


if __name__ == "__main__":
    main()
