"""TERMS, the registry of reward terms, and the terms that are computed on the host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distill_jax import answers
from distill_jax.data.problem import Problem
from distill_jax.reasoning import quality
from distill_jax.rewards.custom import CustomReward
from distill_jax.rewards.settings import RewardSettings
from distill_jax.tasks import Judged


class Completions(NamedTuple):
    """B completions with their verdicts.

    Attributes:
        problems: one a completion.
        texts: completions without special tokens.
        judged: the task's verdicts.
        ended_B: bool, whether the completion ended with EOS.
    """

    problems: Sequence[Problem]
    texts: Sequence[str]
    judged: Judged
    ended_B: np.ndarray


# Completions -> f32 [B], NaN where the term does not apply.
HostScore = Callable[[Completions], np.ndarray]


@dataclass(frozen=True)
class Term:
    """A reward term; its weight is the setting `NAME_weight` of RewardSettings.

    Attributes:
        granularity: what one value belongs to: "sequence", "step" or "token".
        side: where it is computed: "host" or "device".
        adapts: whether `rewards.adaptive` may change its weight.
        make: for the host: (settings, several_hosts) -> the score.
    """

    granularity: str
    side: str
    adapts: bool
    make: Callable[[RewardSettings, bool], HostScore] | None = None


def _correctness(settings: RewardSettings, several_hosts: bool) -> HostScore:
    del several_hosts

    def score(found: Completions) -> np.ndarray:
        reward_B = np.where(found.judged.right_B, settings.right, settings.wrong)
        reward_B = reward_B.astype(np.float32)
        reward_B[found.judged.undecided_B] = np.nan
        return reward_B

    return score


def _reasoning(settings: RewardSettings, several_hosts: bool) -> HostScore:
    del settings, several_hosts

    def score(found: Completions) -> np.ndarray:
        values = [quality.logical_consistency(text) for text in found.texts]
        return np.array([np.nan if value is None else value for value in values], np.float32)

    return score


def _format(settings: RewardSettings, several_hosts: bool) -> HostScore:
    del settings, several_hosts

    def score(found: Completions) -> np.ndarray:
        stated = [answers.extract(text) is not None for text in found.texts]
        return np.asarray(stated, np.float32) * found.ended_B.astype(np.float32)

    return score


class _Custom:
    """A user's function in a process of its own: see `rewards.custom`."""

    def __init__(self, settings: RewardSettings, several_hosts: bool):
        patience = 1 if several_hosts else 3
        self.reward = CustomReward(settings.custom, settings.custom_deadline_s, patience)

    def __call__(self, found: Completions) -> np.ndarray:
        prompts = [problem.question for problem in found.problems]
        gold = [problem.answer for problem in found.problems]
        return self.reward(prompts, found.texts, gold, columns(found.problems))

    def metrics(self) -> dict[str, float]:
        """Batches that missed the deadline."""
        return {"rewards/custom/late": float(self.reward.late)}

    def close(self) -> None:
        """Ends the process."""
        self.reward.close()


TERMS: dict[str, Term] = {
    "correctness": Term("sequence", "host", adapts=False, make=_correctness),
    "intrinsic": Term("token", "device", adapts=True),
    "reasoning": Term("sequence", "host", adapts=True, make=_reasoning),
    "format": Term("sequence", "host", adapts=True, make=_format),
    "custom": Term("sequence", "host", adapts=True, make=_Custom),
}


class HostTerms:
    """The host's terms that have a weight; correctness always, for the records.

    Args:
        settings: weights and what the terms need.
        several_hosts: whether other processes train the same model.
    """

    def __init__(self, settings: RewardSettings, *, several_hosts: bool = False):
        self.scores: dict[str, HostScore] = {
            name: term.make(settings, several_hosts)
            for name, term in TERMS.items()
            if term.make is not None and (settings.weights[name] or name == "correctness")
        }

    def __call__(self, found: Completions) -> dict[str, np.ndarray]:
        """{term: f32 [B]}, NaN where a term does not apply."""
        return {name: score(found) for name, score in self.scores.items()}

    def metrics(self) -> dict[str, float]:
        """Metrics logged in addition to each term's mean."""
        found: dict[str, float] = {}
        for score in self.scores.values():
            if isinstance(score, _Custom):
                found |= score.metrics()
        return found

    def close(self) -> None:
        """Ends the processes that terms hold."""
        for score in self.scores.values():
            if isinstance(score, _Custom):
                score.close()


def columns(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """The problems' other columns, as lists; None where a row has none."""
    rows: list[Mapping[str, Any]] = [
        {"id": p.id, "level": p.level, "subject": p.subject, "solution": p.solution, **p.extra}
        for p in problems
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
