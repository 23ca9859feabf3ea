"""Curricula as entries of one dictionary: what share each arm has in a step's draw.

An entry is a pure function of the plan, the state and the step. Problems without a level have no
place in an order of levels: the ordered entries always draw them, as often as they occur.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.kernels import curriculum as kernels


class Plan(NamedTuple):
    """What stays the same for a run: level_A (0: none) and size_A int64, problems drawn a step,
    and the settings that entries ask for."""

    level_A: np.ndarray
    size_A: np.ndarray
    batch: int
    temperature: float
    floor: float
    pace_steps: int
    competence_start: float


class Choice(NamedTuple):
    """share_A float64 [A] that sums to 1, and pool_A int64 [A]: how many of each arm's problems,
    easiest first, may be drawn (at least 1 wherever the share is above 0)."""

    share_A: np.ndarray
    pool_A: np.ndarray


class Method(NamedTuple):
    """An entry: its choice for (plan, state, step). With `one_shuffle` the problems of all arms
    are drawn in one shuffle an epoch, which gives each arm its share without any draw of arms."""

    choose: Callable[[Plan, Mapping[str, Any], int], Choice]
    one_shuffle: bool = False


def uniform(plan: Plan, state: Mapping[str, Any], step: int) -> Choice:
    """Every problem with equal probability: an arm has the share of its problems."""
    return _choice(plan, plan.size_A)


def self_evolving(plan: Plan, state: Mapping[str, Any], step: int) -> Choice:
    """Boltzmann over the arms' values, which TD(0) follows (arXiv 2505.14970)."""
    open_A, floor = plan.size_A > 0, plan.floor
    share_A = _boltzmann(state["q"], open_A, temperature=plan.temperature, floor=floor)
    return _choice(plan, np.asarray(share_A))


def one_level(plan: Plan, state: Mapping[str, Any], step: int, *, falling: bool) -> Choice:
    """One level at a time, each for an equal part of the steps; then the last."""
    levels = _levels(plan)[::-1] if falling else _levels(plan)
    now = levels[min(step * len(levels) // plan.pace_steps, len(levels) - 1)]
    return _choice(plan, _with_unlevelled(plan, np.where(plan.level_A == now, plan.size_A, 0)))


def competence(plan: Plan, state: Mapping[str, Any], step: int) -> Choice:
    """Uniform over the easiest share c(t) of the problems (arXiv 1903.09848).

    A problem's difficulty is its level, then the length of its worked solution: levels alone are
    too coarse for a c(t) that grows with every step. The pool is never smaller than a batch.
    """
    levelled_A = np.where(plan.level_A > 0, plan.size_A, 0)
    total = int(levelled_A.sum())
    share = float(_competence(step, steps=plan.pace_steps, start=plan.competence_start))
    # With subjects several arms share a level: each opens in step with the others of it.
    pool_A, left = np.zeros_like(plan.size_A), max(int(share * total), min(plan.batch, total))
    for level in _levels(plan):
        here = plan.level_A == level
        size = int(plan.size_A[here].sum())
        pool_A[here] = np.ceil(plan.size_A[here] * (min(left, size) / size)).astype(np.int64)
        left = max(0, left - size)
    return _choice(plan, _with_unlevelled(plan, pool_A), pool_A)


CURRICULA: dict[str, Method] = {
    "uniform": Method(uniform, one_shuffle=True),
    "self_evolving": Method(self_evolving),
    "easy_to_hard": Method(functools.partial(one_level, falling=False)),
    "hard_to_easy": Method(functools.partial(one_level, falling=True)),
    "competence": Method(competence),
}

_boltzmann, _competence = jax.jit(kernels.boltzmann), jax.jit(kernels.competence)


def _levels(plan: Plan) -> np.ndarray:
    return np.unique(plan.level_A[plan.level_A > 0])


def _with_unlevelled(plan: Plan, weight_A: np.ndarray) -> np.ndarray:
    """Shares of levelled arms by weight; problems without a level keep their own share."""
    without_A = np.where(plan.level_A == 0, plan.size_A, 0) / plan.size_A.sum()
    return without_A + (1 - without_A.sum()) * weight_A / weight_A.sum()


def _choice(plan: Plan, weight_A: np.ndarray, pool_A: np.ndarray | None = None) -> Choice:
    share_A = np.asarray(weight_A, np.float64)
    pool_A = plan.size_A if pool_A is None else np.where(plan.level_A == 0, plan.size_A, pool_A)
    return Choice(share_A / share_A.sum(), pool_A)
