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
from distill_jax.stages.supervised import MULTIPLE


class MixedRows:
    """Own solutions and given ones, a fixed number of each in every batch.

    Args:
        own, base: rendered rows; base may be empty if `own_rows` is the batch.
        own_rows: own solutions of a batch.
        seed: of the order, any text.
        pad_id: fills rows.
    """

    def __init__(
        self, own: Sequence[Example], base: Sequence[Example], own_rows: int, seed: str, pad_id: int
    ):
        self.own, self.base, self.own_rows, self.pad_id = own, base, own_rows, pad_id
        self.seeds = [int(digest.of(f"{seed}/{part}")[:16], 16) for part in ("own", "base")]

    @property
    def examples(self) -> Sequence[Example]:
        """All rows."""
        return [*self.own, *self.base]

    def batch(self, step: int, size: int) -> dict[str, np.ndarray]:
        """Batch `step`: see `batching.pack_examples`."""
        counts = (self.own_rows, size - self.own_rows)
        chosen: list[Example] = []
        for rows, count, seed in zip((self.own, self.base), counts, self.seeds, strict=True):
            if count:
                index = batching.batch_indices(seed, step, count, len(rows))
                chosen += [rows[i] for i in index]
        return batching.pack_examples(chosen, pad_id=self.pad_id, multiple=MULTIPLE)


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
