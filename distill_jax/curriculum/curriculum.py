"""Curriculum: the one object that a stage holds; draws a step's problems, learns from them.

Each place of a draw takes its arm by the shares; an arm then gives its problems in the order of a
shuffle, so no problem repeats within a pass over its arm (repeats can occur where two passes meet).
A pool that grows every step is shuffled every step, as in sampling with replacement. The state's
`count`, how many problems each arm has given, is the place in that shuffle; nothing else is kept.

Methods by verdicts (posterior, pools) rank all problems by the state's counts of right and wrong
samples of each, and draw the first ones, without replacement in a step.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import DataError
from distill_jax.curriculum import arms, rewards, verdicts
from distill_jax.curriculum.methods import CURRICULA, Plan
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.data import batching
from distill_jax.data.problem import Problem

# The last word of Philox's counter keeps these streams apart from other draws under the same key
# (data.batching has 0 and 1, the order of minibatches 2, rollout.oversample 5).
_ARMS, _SHUFFLE, _PLACE = 3, 4, 6


class Curriculum:
    """What a stage draws; everything that changes is in the state, a part of TrainState.

    Args:
        settings: of the curriculum.
        problems: the stage's training problems; draws are numbers into this list.
        seed, steps: of the stage.
        batch: problems a draw.
        samples: of each problem drawn, each with a verdict.
        rounds: draws that a step may make (dynamic sampling makes several).
        out_shardings: where `update` leaves the state; None: where jax puts it.

    Raises:
        DataError: no problem is left, or the method has no levels to choose from, or fewer
            problems than a draw has.
    """

    def __init__(
        self,
        settings: CurriculumSettings,
        problems: Sequence[Problem],
        *,
        seed: int,
        batch: int,
        samples: int = 1,
        steps: int,
        rounds: int = 1,
        out_shardings: Any = None,
    ):
        self.settings, self.seed, self.batch, self.rounds = settings, seed, batch, rounds
        self.samples = samples
        self.method = CURRICULA[settings.method]
        self.arms = arms.build(problems, kind=settings.arms, unlevelled=settings.unlevelled)
        if self.method.needs_levels and not self.arms.level_A.any():
            raise DataError(
                f"curriculum {settings.method}: none of {len(problems)} problems has a level",
                fix="use data with a column level (math, embedded), or curriculum uniform",
            )
        if self.method.place is not None and len(self.arms.kept) < batch:
            raise DataError(
                f"curriculum {settings.method}: {len(self.arms.kept)} problems",
                wanted=f"at least {batch}, the problems of a draw, which repeats none",
                fix="draw fewer, or keep problems without a level (unlevelled=own_arm)",
            )
        self.plan = Plan(
            level_A=self.arms.level_A,
            size_A=self.arms.size_A,
            batch=batch,
            temperature=settings.temperature,
            floor=settings.floor,
            pace_steps=settings.pace_steps or steps,
            competence_start=settings.competence_start,
            target=settings.target,
            pool_weight=settings.pool_weight,
        )

        def update(
            state: rewards.State, step: rewards.Measured, judged: verdicts.Verdicts | None
        ) -> rewards.State:
            of_arms = rewards.update(state, step, settings)
            if judged is None:
                return of_arms
            return of_arms | verdicts.update(state, judged, settings.memory)

        self._update = jax.jit(update, out_shardings=out_shardings)

    @property
    def note(self) -> str:
        """What a user should know of problems without a level; empty if there are none."""
        if not self.arms.unlevelled:
            return ""
        dropped = self.settings.unlevelled == "drop"
        done = "dropped" if dropped else f"drawn as one group, {arms.NO_LEVEL} in the metrics"
        return f"{self.arms.unlevelled} of {len(self.arms.arm_N)} problems have no level: {done}"

    def fresh(self) -> rewards.State:
        """The state before the first step: a dict of arrays [A], part of TrainState.

        With a method by verdicts also two arrays [N], of all N problems.
        """
        of_arms = rewards.fresh(len(self.arms.names), self.settings.initial_q)
        if self.method.place is None:
            return of_arms
        return of_arms | verdicts.fresh(len(self.arms.arm_N))

    def problem_ids(
        self, state: Mapping[str, Any], step: int, earlier: Sequence[int] | np.ndarray = ()
    ) -> np.ndarray:
        """Numbers of the problems of a draw, int64 [batch]: a pure function of its arguments.

        The state is that before this step, counted from 0; `earlier` is all that former draws of
        the step gave.
        """
        number = len(earlier) // self.batch
        if self.method.one_shuffle:
            kept, draw = self.arms.kept, step * self.rounds + number
            return kept[batching.batch_indices(self.seed, draw, self.batch, len(kept))]
        host = sharding.fetch(dict(state))
        if self.method.choose is None:
            return self._by_verdicts(host, step, np.asarray(earlier, np.int64), number)
        choice = self.method.choose(self.plan, host, step)
        given_A = host["count"] + np.bincount(
            self.arms.arm_N[np.asarray(earlier, np.int64)], minlength=len(self.arms.names)
        )
        bits = np.random.Philox(key=[self.seed, step], counter=[0, number, 0, _ARMS])
        bounds_A = np.cumsum(choice.share_A)
        # Divided, so that rounding cannot leave a gap below 1.
        where_B = np.random.Generator(bits).random(self.batch)
        arm_B = np.searchsorted(bounds_A / bounds_A[-1], where_B, side="right")
        out = np.empty(self.batch, np.int64)
        for arm in np.unique(arm_B):
            pool = int(choice.pool_A[arm])
            for offset, place in enumerate(np.flatnonzero(arm_B == arm)):
                epoch, at = divmod(int(given_A[arm]) + offset, pool)
                shuffled = _shuffle(self.seed, epoch, int(arm), pool)
                out[place] = self.arms.members[arm][shuffled[at]]
        return out

    def _by_verdicts(
        self, host: Mapping[str, np.ndarray], step: int, earlier: np.ndarray, number: int
    ) -> np.ndarray:
        assert self.method.place is not None
        kept = self.arms.kept
        bits = np.random.Philox(key=[self.seed, step], counter=[0, number, 0, _PLACE])
        place_N = self.method.place(
            self.plan, host["right"][kept], host["wrong"][kept], np.random.Generator(bits)
        )
        given_N = np.bincount(earlier, minlength=len(self.arms.arm_N))[kept]
        # Rejection sampling takes other numbers where a library rounds a logarithm otherwise, so
        # hosts take the draw of one.
        return sharding.of_first_process(kept[verdicts.first(place_N, given_N, self.batch)])

    def update(
        self, state: Mapping[str, Any], ids: np.ndarray, signal: np.ndarray, mastery: np.ndarray
    ) -> rewards.State:
        """The state after a step.

        Args:
            state: before it.
            ids: int [K], every problem that the step drew, in all its draws.
            signal: float [K] in [0, 1], how much there was to learn; NaN: not measured.
            mastery: float [K] in [0, 1], how well it went; NaN: not measured. For a method by
                verdicts the share of the problem's samples that are right.
        """
        ids = np.asarray(ids, np.int64)
        measured = rewards.measure(self.arms.arm_N[ids], signal, mastery, len(self.arms.names))
        judged = None
        if self.method.place is not None:
            judged = verdicts.measure(ids, mastery, self.samples, len(self.arms.arm_N))
        return self._update(dict(state), measured, judged)

    def metrics(self, before: Mapping[str, Any], after: Mapping[str, Any], step: int) -> dict:
        """Figures of a step by arm: values, counts and mastery in the state after it, and the
        probability p by which it was drawn from the state before it.

        A method by verdicts has the arm's share of the problems drawn as p, and figures of all
        problems.
        """
        host, found = sharding.fetch(dict(after)), {}
        if self.method.place is not None:
            found = verdicts.metrics(host, self.arms.kept)
        if len(self.arms.names) == 1:
            return found
        share_A = host["share"]
        if self.method.choose is not None:
            share_A = self.method.choose(self.plan, sharding.fetch(dict(before)), step).share_A
        columns = {
            "q": host["q"],
            "p": share_A,
            "count": host["count"],
            # Values that were never measured are skipped: 0 would be a figure.
            "mastery": np.where(host["seen"], host["mastery"], np.nan),
        }
        return found | {
            f"curriculum/{column}/{name}": value.item()
            for column, values in columns.items()
            for name, value in zip(self.arms.names, values, strict=True)
            if np.isfinite(value)
        }


@lru_cache(maxsize=256)
def _shuffle(seed: int, epoch: int, arm: int, pool: int) -> np.ndarray:
    bits = np.random.Philox(key=[seed, epoch], counter=[0, arm, pool, _SHUFFLE])
    return np.random.Generator(bits).permutation(pool)
