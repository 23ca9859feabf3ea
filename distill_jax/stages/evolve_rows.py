"""What a round of self-evolution learns on, and the rows that it leaves."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core import digest
from distill_jax.data import batching
from distill_jax.data.chat import Example, Prompts
from distill_jax.data.trace_rows import Trace
from distill_jax.stages.evolve_draw import Drawn


class MixedRows:
    """Own solutions and given ones, a fixed number of each in every batch.

    Args:
        own, base: rendered rows; base may be empty if `own_rows` is the batch.
        own_rows: own solutions of a batch.
        seed: of the order, any text.
    """

    def __init__(self, own: Sequence[Example], base: Sequence[Example], own_rows: int, seed: str):
        self.own, self.base, self.own_rows = own, base, own_rows
        self.seeds = [int(digest.of(f"{seed}/{part}")[:16], 16) for part in ("own", "base")]

    @property
    def examples(self) -> Sequence[Example]:
        """All rows, own ones first."""
        return [*self.own, *self.base]

    def indices(self, step: int, size: int) -> np.ndarray:
        """Numbers of the examples of batch `step`, int64 [size]."""
        parts = (
            (self.seeds[0], self.own_rows, len(self.own), 0),
            (self.seeds[1], size - self.own_rows, len(self.base), len(self.own)),
        )
        chosen = [
            batching.batch_indices(seed, step, count, rows) + offset
            for seed, count, rows, offset in parts
            if count
        ]
        return np.concatenate(chosen)


def row(pool: Prompts, one: Drawn, round_: int, accepted: bool) -> dict[str, Any]:
    """A right solution as a row of stage traces, with its round, score and acceptance."""
    problem = pool.problems[one.problem]
    trace = Trace(
        problem.id,
        problem.question,
        problem.answer,
        one.text,
        one.tokens,
        one.ended,
        one.right,
        one.undecided,
        one.sample,
    )
    score = None if np.isnan(one.score) else round(one.score, 6)
    return {
        **dataclasses.asdict(trace),
        "level": problem.level,
        "round": round_,
        "score": score,
        "accepted": accepted,
    }


def raw(path: Path) -> list[dict[str, Any]]:
    """The rows of a round's file, which may have none."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def accepted_rows(path: Path) -> list[Trace]:
    """The accepted solutions of a round's file."""
    names = [field.name for field in dataclasses.fields(Trace)]
    return [Trace(**{n: one[n] for n in names}) for one in raw(path) if one["accepted"]]
