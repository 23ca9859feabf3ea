"""Verdicts: how often each problem was solved, the draw of a step by that, and its figures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.curriculum.methods import EASY, HARD
from distill_jax.kernels.curriculum import beta_mean, discounted_counts


class Verdicts(NamedTuple):
    """Those of a step by problem: right and wrong f32 [N], drawn bool [N]."""

    right_N: np.ndarray
    wrong_N: np.ndarray
    drawn_N: np.ndarray


def fresh(problems: int) -> dict[str, jax.Array]:
    """The state before the first step: right and wrong, f32 [N]."""
    zero = jnp.zeros(problems, jnp.float32)
    return {"right": zero, "wrong": zero}


def measure(ids_K: np.ndarray, share_K: np.ndarray, samples: int, problems: int) -> Verdicts:
    """Verdicts by problem; arrays [N], so that no count of draws compiles another update.

    Args:
        ids_K: int [K], each problem that was drawn, in any of the step's draws.
        share_K: share of its samples that are right; NaN: not measured.
        samples: of each problem.
        problems: N.
    """
    share_K = np.asarray(share_K, np.float64)
    known_K = np.isfinite(share_K)
    ids_K, right_K = ids_K[known_K], np.rint(share_K[known_K] * samples)
    right_N = np.bincount(ids_K, right_K, minlength=problems).astype(np.float32)
    drawn_N = np.bincount(ids_K, minlength=problems)
    wrong_N = (drawn_N * samples - right_N).astype(np.float32)
    return Verdicts(right_N, wrong_N, drawn_N > 0)


def update(state: Mapping[str, jax.Array], step: Verdicts, memory: float) -> dict[str, jax.Array]:
    """The state after a step: older verdicts on the problems drawn count `memory` times."""
    new = {"right": step.right_N, "wrong": step.wrong_N}
    drawn_N = jnp.asarray(step.drawn_N)
    return {
        name: discounted_counts(state[name], jnp.asarray(new_N), drawn_N, memory=memory)
        for name, new_N in new.items()
    }


def first(place_N: np.ndarray, given_N: np.ndarray, count: int) -> np.ndarray:
    """The `count` problems with the least place, int64; those that the step drew least often come
    first, so that none repeats in a step that has others left."""
    return np.lexsort((place_N, given_N))[:count]


def metrics(state: Mapping[str, Any], kept: np.ndarray) -> dict[str, float]:
    """Shares of the problems kept: with verdicts, hard and easy (as in curriculum pools)."""
    right_N, wrong_N = state["right"][kept], state["wrong"][kept]
    mean_N = np.asarray(_mean(right_N, wrong_N))
    return {
        "curriculum/seen": float(np.mean(right_N + wrong_N > 0)),
        "curriculum/hard": float(np.mean(mean_N <= HARD)),
        "curriculum/easy": float(np.mean(mean_N > EASY)),
    }


_mean = jax.jit(beta_mean)
