"""Encoded solutions in batches of a few shapes: rows of similar length share a forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.core.errors import NonFiniteError
from distill_jax.reasoning.steps import Encoded

# Rows of a forward pass.
BATCH = 64
# Smallest extents of rows and steps; others are these doubled, so that few programs are compiled.
TOKENS, STEPS = 32, 8


def in_batches(
    rows: Sequence[Encoded],
    arrays: Callable[[Sequence[Encoded]], Any],
    program: Callable[..., jax.Array],
    *,
    mesh: Mesh,
    batch: int,
) -> dict[int, np.ndarray]:
    """{index of a row: its part of the program's result}, for the rows that have a step.

    Args:
        rows: encoded solutions.
        arrays: host arrays of a batch's rows.
        program: called with them on the mesh, the rows split over it.
        mesh, batch: rows of a forward pass, at most.
    """
    kept = [i for i in np.argsort([len(r.tokens) for r in rows], kind="stable") if rows[i].ends]
    found: dict[int, np.ndarray] = {}
    if not kept:
        return found
    size = round_up(min(batch, doubled(len(kept), 1)), sharding.batch_shards(mesh))
    where = sharding.batch_sharding(mesh)
    for start in range(0, len(kept), size):
        index = kept[start : start + size]
        chosen = [rows[i] for i in filled(index, size)]
        result = sharding.fetch(program(*sharding.place(arrays(chosen), where)))
        found |= dict(zip(map(int, index), result, strict=False))
    return found


def padded(rows: Sequence[Sequence[int]], least: int) -> np.ndarray:
    """int32, right-padded to a doubled extent with zeros, which nothing reads."""
    out = np.zeros((len(rows), doubled(max(map(len, rows)), least)), np.int32)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return out


def refused_unless_finite(found: list[np.ndarray]) -> list[np.ndarray]:
    """The given probabilities, unchanged.

    Raises:
        NonFiniteError: one is not finite.
    """
    if not all(np.isfinite(one).all() for one in found):
        raise NonFiniteError(
            "the reward model's scores are not finite",
            wanted="probabilities",
            fix="look at its weights; set student.compute_dtype=float32",
        )
    return found


def doubled(least: int, size: int) -> int:
    """The first of size, 2·size, 4·size, … that holds `least`."""
    while size < least:
        size *= 2
    return size
