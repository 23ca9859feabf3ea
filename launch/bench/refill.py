r"""Counts rows × steps of drawing many completions: in batches, and in rows that are refilled.

    python -m launch.bench.refill
    python -m launch.bench.refill --rows=64 --parts=20 --longest=512 --segment=32

The sampler draws from a model of a few numbers whose end token never comes; each prompt's room is
its completion's length, from an exponential distribution cut at the longest, of the given mean.
Work is counted where XLA gets it; nothing is timed. The rows of the table: batches as large as
their longest completion (static); batches that ended rows leave (`Sampler.generate`); refilled rows
(`Sampler.stream`), which all callers use that have more completions than rows.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from distill_jax.core import sharding
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rollout.sampler import Part, Sampler, SamplingSettings
from launch.arguments import OneLine, tool_parser

_TINY = QwenConfig(
    "qwen2",
    vocab_size=16,
    hidden_size=8,
    intermediate_size=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    max_position_embeddings=8,
)


@dataclasses.dataclass
class Counts:
    """Of one way to draw: steps, and the rows that each decoded."""

    steps: int = 0
    row_steps: int = 0


class _Counted:
    """Programs of a sampler whose segments are counted."""

    def __init__(self, programs: Any, counts: Counts):
        self._programs, self._counts = programs, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._programs, name)

    def segment(self, weights: Any, carry: Any, offsets: Any, steps: int, settings: Any) -> Any:
        """As that of the programs."""
        self._counts.steps += steps
        self._counts.row_steps += steps * len(carry.done_B)
        return self._programs.segment(weights, carry, offsets, steps, settings)


def lengths(count: int, longest: int, mean: float, seed: int = 0) -> np.ndarray:
    """int64 [N] of the given longest and mean/longest, at least 1, in random order."""
    quantile_N = (np.arange(count) + 0.5) / count
    low, high = 0.01, 100.0
    for _ in range(60):  # the scale, by bisection: the cut changes the mean
        scale = (low + high) / 2
        found_N = np.minimum(-np.log1p(-quantile_N) * scale, 1.0)
        low, high = (scale, high) if found_N.mean() < mean else (low, scale)
    found_N = np.maximum(np.ceil(found_N * longest), 1).astype(np.int64)
    return np.random.default_rng(seed).permutation(found_N)


def count(length_N: np.ndarray, *, rows: int, segment: int) -> dict[str, Counts]:
    """Steps and rows × steps of each way to draw completions of these lengths."""
    longest = int(length_N.max())
    config = dataclasses.replace(_TINY, max_position_embeddings=longest + 1)
    model = QwenModel(config)
    mesh = sharding.make_mesh(sharding.MeshSettings(), jax.devices()[:1])
    sampler = Sampler(model, mesh, eos_id=config.vocab_size, pad_id=0, vocab=config.vocab_size)
    settings = SamplingSettings(max_new_tokens=longest, segment=segment, prompt_multiple=1)
    weights = sampler.weights(model.init(jax.random.key(0)), settings)
    parts = [
        Part([[1]] * len(part_N), range(len(part_N)), rooms=part_N.tolist())
        for part_N in np.split(length_N, range(rows, len(length_N), rows))
    ]
    static = [(max(part.rooms or ()), len(part.prompts)) for part in parts]
    steps, row_steps = sum(n for n, _ in static), sum(n * size for n, size in static)
    found = {"static": Counts(steps, row_steps), "batches": Counts(), "refilled": Counts()}
    how: dict[str, Any] = {"key": jax.random.key(0), "samples": 1}
    real = sampler.programs
    sampler._segment = _Counted(real, found["batches"]).segment  # type: ignore[assignment]
    sampler.programs = _Counted(real, found["refilled"])  # type: ignore[assignment]
    for part in parts:
        given = {"prompt_ids": part.prompt_ids, "rooms": part.rooms, **how}
        sampler.generate(weights, part.prompts, settings, **given)
    drawn = sampler.stream(weights, parts, settings, rows=rows, **how)
    got_N = np.concatenate([rollout.length_B for rollout in drawn])
    np.testing.assert_array_equal(got_N, length_N)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("bench.refill", __doc__)
    for name, default in (("rows", 32), ("parts", 16), ("longest", 256), ("segment", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mean", type=float, default=0.4, help="mean length / longest")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prints the table."""
    flags = _parser().parse_args(argv)
    with OneLine():
        length_N = lengths(flags.rows * flags.parts, flags.longest, flags.mean)
        found = count(length_N, rows=flags.rows, segment=flags.segment)
    ratio = length_N.mean() / length_N.max()
    title = f"{len(length_N)} completions in {flags.rows} rows, mean/longest {ratio:.2f}"
    table = Table("", "steps", "rows × steps", "static / this", title=title)
    for name, one in found.items():
        less = found["static"].row_steps / one.row_steps
        table.add_row(name, f"{one.steps:,}", f"{one.row_steps:,}", f"{less:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
