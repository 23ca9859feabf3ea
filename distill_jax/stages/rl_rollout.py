"""A step's problems, drawn by the curriculum, and their completions, judged; dynamic sampling."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core import rng
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.data.problem import Problem
from distill_jax.rewards.correctness import Correctness, correctness
from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.stages.context import Context


class Drawn(NamedTuple):
    """A draw's problems, their completions and what the answer checker said; B = P·G."""

    problems: list[Problem]
    prompts: list[list[int]]
    rollout: Rollout
    texts: list[str]
    judged: Correctness


class Collected(NamedTuple):
    """What a step trains on, and all K ≥ P problems that it drew for that.

    Attributes:
        drawn: the P groups that are trained on.
        ids_K: number of each problem drawn.
        owner_P: which of the K each trained group is.
        differs_K: bool, whether some samples of the group are right and some wrong.
        accuracy_K: share of the group's samples that are right.
    """

    drawn: Drawn
    ids_K: np.ndarray
    owner_P: np.ndarray
    differs_K: np.ndarray
    accuracy_K: np.ndarray

    def correctness_K(self) -> np.ndarray:
        """2√(p(1−p)) of each problem drawn: GRPO's E|Â| of correctness alone."""
        return 2 * np.sqrt(self.accuracy_K * (1 - self.accuracy_K))

    def advantage_K(self, signal_P: np.ndarray) -> np.ndarray:
        """Mean |advantage| of each problem drawn, from that of the trained groups.

        A group that dynamic sampling put away because its samples were alike teaches nothing: 0.
        Without these zeros an arm would look the better, the more of its groups were put away.
        One that would have been of use and found no place was not measured: NaN.
        """
        out_K = np.where(self.differs_K, np.nan, 0.0)
        out_K[self.owner_P] = signal_P
        return out_K


class Rollouts:
    """Draws, samples and judges the groups of a step.

    Args:
        context: settings, problems.
        sampler: of the student.
        curriculum: which problems.
    """

    def __init__(self, context: Context, sampler: Sampler, curriculum: Curriculum):
        self.context, self.sampler, self.curriculum = context, sampler, curriculum
        self.config, self.settings = context.config, context.config.rl

    def __call__(self, weights: Any, state: Mapping[str, Any], step: int) -> Collected:
        """A rollout; with dynamic sampling, groups whose rewards differ replace those alike.

        Args:
            weights: decode weights.
            state: the curriculum's, on the host.
            step: of the stage, from 0.
        """
        P = self.settings.prompts_per_step
        ids_K = self.curriculum.problem_ids(state, step)
        drawn = self._round(weights, ids_K, step, 0)
        accuracy_K, differs_K = self._groups(drawn)
        owner_P, useful = np.arange(P), np.flatnonzero(differs_K)
        for number in range(1, self.settings.dynamic_sampling + 1):
            if len(useful) >= P:
                break
            ids_P = self.curriculum.problem_ids(state, step, ids_K)
            more = self._round(weights, ids_P, step, number)
            accuracy_P, differs_P = self._groups(more)
            places = np.setdiff1d(np.arange(P), useful).tolist()
            pairs = list(zip(places, np.flatnonzero(differs_P).tolist(), strict=False))
            drawn = _replace_groups(drawn, more, pairs, self.settings.samples_per_prompt)
            for place, source in pairs:
                owner_P[place] = len(ids_K) + source
            useful = np.concatenate([useful, np.array([place for place, _ in pairs], np.int64)])
            ids_K = np.concatenate([ids_K, ids_P])
            accuracy_K = np.concatenate([accuracy_K, accuracy_P])
            differs_K = np.concatenate([differs_K, differs_P])
        return Collected(drawn, ids_K, owner_P, differs_K, accuracy_K)

    def _round(self, weights: Any, ids_P: np.ndarray, step: int, number: int) -> Drawn:
        settings, seed = self.settings, self.config.seed
        data = self.context.problems("train")
        problems = [data.problems[i] for i in ids_P]
        prompts = [data.prompts[i] for i in ids_P]
        rollout = self.sampler.generate(
            weights,
            prompts,
            self.config.sampling,
            # Numbered by place, not by problem: one that is drawn twice (at an epoch's end) must
            # not get the same samples twice.
            key=rng.stream_key(rng.run_key(seed), "rollout", step, number),
            prompt_ids=range(len(ids_P)),
            samples=settings.samples_per_prompt,
        )
        texts = [
            self.context.text(row[:n])
            for row, n in zip(rollout.tokens_BR, rollout.length_B, strict=True)
        ]
        rewards = settings.rewards
        gold = [p.answer for p in problems for _ in range(settings.samples_per_prompt)]
        judged = correctness(gold, texts, right=rewards.right, wrong=rewards.wrong)
        return Drawn(problems, prompts, rollout, texts, judged)

    def _groups(self, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy of each group, and whether its samples differ."""
        right_PG = drawn.judged.right_B.reshape(-1, self.settings.samples_per_prompt)
        accuracy_P = np.asarray(right_PG.mean(axis=1))
        return accuracy_P, (accuracy_P > 0) & (accuracy_P < 1)


def _replace_groups(drawn: Drawn, more: Drawn, pairs: list[tuple[int, int]], samples: int) -> Drawn:
    """For each (place, source), the group `source` of `more` in the place of one of `drawn`."""
    problems, prompts, texts = list(drawn.problems), list(drawn.prompts), list(drawn.texts)
    arrays = [np.array(a) for a in (*drawn.rollout, *drawn.judged)]
    others = [*more.rollout, *more.judged]
    for place, source in pairs:
        problems[place], prompts[place] = more.problems[source], more.prompts[source]
        here = slice(place * samples, (place + 1) * samples)
        there = slice(source * samples, (source + 1) * samples)
        texts[here] = more.texts[there]
        for mine, theirs in zip(arrays, others, strict=True):
            mine[here] = theirs[there]
    width = len(drawn.rollout)
    return Drawn(problems, prompts, Rollout(*arrays[:width]), texts, Correctness(*arrays[width:]))
