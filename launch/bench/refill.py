r"""Counts rows × steps of drawing many completions: in batches, and in rows that are refilled.

    python -m launch.bench.refill
    python -m launch.bench.refill --rows=64 --parts=20 --longest=512 --segment=32

The sampler has no model, and the end token never comes; each prompt's room is its completion's
length, from an exponential distribution cut at the longest, of the given mean. Work is counted
where XLA would get it; nothing is timed. The rows of the table: batches as large as their longest
completion (static); batches that ended rows leave (`Sampler.generate`); refilled rows
(`Sampler.stream`). `inference.generate` takes the latter for draws of so many batches as these
counts gave (docs/benchmarks.md).
"""

import argparse
import dataclasses
import types
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from distill_jax.core import sharding
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rollout.sampler import Carry, Part, Sampler, SamplingSettings
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
    """What a sampler compiles, but for the model: rows × steps are counted, nothing is drawn."""

    def __init__(self, real: Any, counts: Counts):
        self.model, self.mesh, self.rows = real.model, real.mesh, real.rows
        self.eos_id, self.pad_id, self.bucket = real.eos_id, real.pad_id, real.bucket
        self._counts = counts

    def prefill(self, weights: Any, tokens_PT: Any, length_P: Any) -> tuple[None, Any]:
        """A cache of which the number of slots is known."""
        return None, types.SimpleNamespace(num_slots=tokens_PT.shape[1])

    def start(self, hidden: Any, cache: Any, length_P: Any, *more: Any) -> Carry:
        """Rows that begin together."""
        *_, prompts, samples, _ = more
        done_B: Any = np.arange(len(length_P) * samples) >= prompts * samples
        return Carry(*(None,) * 4, done_B, None)  # type: ignore[arg-type]

    def insert(self, carry: Carry, *more: Any) -> Carry:
        """The same rows."""
        return carry

    def segment(self, weights: Any, carry: Carry, offsets: Any, steps: int, settings: Any) -> Any:
        """No row ends."""
        shape = steps, len(carry.done_B)
        self._counts.steps += steps
        self._counts.row_steps += steps * len(carry.done_B)
        return carry, (np.full(shape, self.pad_id, np.int32), np.zeros(shape, np.float32))

    def compact(self, carry: Carry, keep_N: Any, filler_N: Any, *more: Any) -> Carry:
        """The rows that stay."""
        return carry._replace(done_B=carry.done_B[keep_N] | filler_N)


def _counted(model: QwenModel, counts: Counts) -> Sampler:
    mesh = sharding.make_mesh(sharding.MeshSettings(), jax.devices()[:1])
    sampler = Sampler(model, mesh, eos_id=1, pad_id=0, vocab=model.config.vocab_size)
    sampler.programs = counted = _Counted(sampler.programs, counts)  # type: ignore[assignment]
    for name in ("prefill", "start", "segment", "compact"):
        setattr(sampler, f"_{name}", getattr(counted, name))
    return sampler


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


def count(
    length_N: np.ndarray, *, rows: int, segment: int, row_counts: int = 0
) -> dict[str, Counts]:
    """Steps and rows × steps of each way to draw completions of these lengths."""
    longest = int(length_N.max())
    config = dataclasses.replace(_TINY, max_position_embeddings=longest + 1)
    model = QwenModel(config)
    settings = SamplingSettings(
        max_new_tokens=longest, segment=segment, prompt_multiple=1, row_counts=row_counts
    )
    parts = [
        Part([[1]] * len(part_N), range(len(part_N)), rooms=part_N.tolist())
        for part_N in np.split(length_N, range(rows, len(length_N), rows))
    ]
    static = [(max(part.rooms or ()), len(part.prompts)) for part in parts]
    steps, row_steps = sum(n for n, _ in static), sum(n * size for n, size in static)
    found = {"static": Counts(steps, row_steps), "batches": Counts(), "refilled": Counts()}
    how: dict[str, Any] = {"key": jax.random.key(0), "samples": 1}
    for part in parts:
        given = {"prompt_ids": part.prompt_ids, "rooms": part.rooms, **how}
        _counted(model, found["batches"]).generate(None, part.prompts, settings, **given)
    stream = _counted(model, found["refilled"]).stream
    drawn = stream(None, parts, settings, rows=rows, **how)
    got_N = np.concatenate([rollout.length_B for rollout in drawn])
    np.testing.assert_array_equal(got_N, length_N)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("bench.refill", __doc__)
    for name, default in (("rows", 32), ("parts", 16), ("longest", 256), ("segment", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--row_counts", type=int, default=0, help="sampling.row_counts; 0: halves")
    parser.add_argument("--mean", type=float, default=0.4, help="mean length / longest")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prints the table."""
    flags = _parser().parse_args(argv)
    with OneLine():
        length_N = lengths(flags.rows * flags.parts, flags.longest, flags.mean)
        sizes = {"segment": flags.segment, "row_counts": flags.row_counts}
        found = count(length_N, rows=flags.rows, **sizes)
    ratio = length_N.mean() / length_N.max()
    title = f"{len(length_N)} completions in {flags.rows} rows, mean/longest {ratio:.2f}"
    table = Table("", "steps", "rows × steps", "static / this", title=title)
    for name, one in found.items():
        less = found["static"].row_steps / one.row_steps
        table.add_row(name, f"{one.steps:,}", f"{one.row_steps:,}", f"{less:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
