"""Curricula as entries of one dictionary: what share each arm has in a step's draw, or which of
all problems come first in it.

An entry by arms is a pure function of the plan, the state and the step. Problems without a level
have no place in an order of levels: the ordered entries always draw them, as often as they occur.
An entry by verdicts ranks problems by how often each was solved; it reads no level.
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
    target: float
    pool_weight: float


class Choice(NamedTuple):
    """share_A float64 [A] that sums to 1, and pool_A int64 [A]: how many of each arm's problems,
    easiest first, may be drawn (at least 1 wherever the share is above 0)."""

    share_A: np.ndarray
    pool_A: np.ndarray


class Method(NamedTuple):
    """An entry; one of its two functions is there.

    Attributes:
        choose: (plan, state, step) -> shares of the arms.
        place: (plan, right_N, wrong_N, random numbers) -> float64 [N]; the problems with the
            least are drawn. The counts are those of `verdicts`, float [N].
        one_shuffle: the problems of all arms are drawn in one shuffle an epoch, which gives each
            arm its share without any draw of arms.
    """

    choose: Callable[[Plan, Mapping[str, Any], int], Choice] | None = None
    place: Callable[[Plan, np.ndarray, np.ndarray, np.random.Generator], np.ndarray] | None = None
    one_shuffle: bool = False

    @property
    def needs_levels(self) -> bool:
        """Whether there is nothing to choose among problems without levels."""
        return self.choose is not None and not self.one_shuffle


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


def posterior(
    plan: Plan, right_N: np.ndarray, wrong_N: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """Distance of a success rate drawn from each problem's Beta posterior to the target.

    Thompson sampling (MoPPS, arXiv 2507.04632): a group is likeliest to have right and wrong
    answers near ½, and a problem that was seldom drawn has a wide posterior, so it is tried.
    """
    sampled_N = draws.beta(1.0 + np.float64(right_N), 1.0 + np.float64(wrong_N))
    return np.abs(sampled_N - plan.target)


def pools(
    plan: Plan, right_N: np.ndarray, wrong_N: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """Hard and easy problems less often, by `pool_weight`; without replacement in the draw.

    Pools as in prime-rl, by the posterior's mean: problems never seen have ½ and are normal. The
    least of E/w, with E exponential, are a draw with weights w (Efraimidis and Spirakis 2006).
    """
    mean_N = np.asarray(_beta_mean(right_N, wrong_N))
    normal_N = (mean_N > HARD) & (mean_N <= EASY)
    return draws.exponential(size=len(mean_N)) / np.where(normal_N, 1.0, plan.pool_weight)


# Pools: hard up to the first success rate, easy above the second.
HARD, EASY = 0.25, 0.75

CURRICULA: dict[str, Method] = {
    "uniform": Method(uniform, one_shuffle=True),
    "self_evolving": Method(self_evolving),
    "easy_to_hard": Method(functools.partial(one_level, falling=False)),
    "hard_to_easy": Method(functools.partial(one_level, falling=True)),
    "competence": Method(competence),
    "posterior": Method(place=posterior),
    "pools": Method(place=pools),
}

_boltzmann, _competence = jax.jit(kernels.boltzmann), jax.jit(kernels.competence)
_beta_mean = jax.jit(kernels.beta_mean)


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
