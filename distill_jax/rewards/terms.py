"""TERMS, the registry of reward terms, and the terms that are computed on the host."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from distill_jax.data.problem import Problem
from distill_jax.reasoning import quality
from distill_jax.rewards.custom import ARGUMENTS, CustomReward
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


# (settings, completions) -> f32 [B], NaN where the term does not apply.
HostScore = Callable[[RewardSettings, Completions], np.ndarray]


class Term(NamedTuple):
    """A reward term; its weight is the setting `NAME_weight` of RewardSettings.

    Attributes:
        adapts: whether `rewards.adaptive` may change its weight.
        score: computes it on the host, one value a sequence; None: `HostTerms` or the device does.
    """

    adapts: bool
    score: HostScore | None = None


def _correctness(settings: RewardSettings, found: Completions) -> np.ndarray:
    reward_B = np.where(found.judged.right_B, settings.right, settings.wrong).astype(np.float32)
    reward_B[found.judged.undecided_B] = np.nan
    return reward_B


def _reasoning(settings: RewardSettings, found: Completions) -> np.ndarray:
    values = [quality.logical_consistency(text) for text in found.texts]
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _format(settings: RewardSettings, found: Completions) -> np.ndarray:
    stated = [one is not None for one in found.judged.stated]
    return np.asarray(stated, np.float32) * found.ended_B.astype(np.float32)


TERMS: dict[str, Term] = {
    "correctness": Term(adapts=False, score=_correctness),
    "intrinsic": Term(adapts=True),
    "reasoning": Term(adapts=True, score=_reasoning),
    "format": Term(adapts=True, score=_format),
    "custom": Term(adapts=True),
    # A bonus for right answers, added to their advantages (rewards/length.py).
    "length": Term(adapts=False),
}


class HostTerms:
    """The host's terms that have a weight; correctness always, for the records.

    With `several_hosts` other processes train the same model. `say` takes warnings.
    """

    def __init__(
        self,
        settings: RewardSettings,
        *,
        several_hosts: bool = False,
        say: Callable[[str], None] = logging.warning,
    ):
        self.settings, self.custom = settings, None
        self.scores = {
            name: term.score
            for name, term in TERMS.items()
            if term.score is not None and (settings.weights[name] or name == "correctness")
        }
        if settings.weights["custom"]:
            patience = 1 if several_hosts else 3
            self.custom = CustomReward(settings.custom, settings.custom_deadline_s, patience, say)

    def __call__(self, found: Completions) -> dict[str, np.ndarray]:
        """{term: f32 [B]}, NaN where a term does not apply."""
        values = {name: score(self.settings, found) for name, score in self.scores.items()}
        if self.custom is not None:
            prompts = [problem.question for problem in found.problems]
            gold = [problem.answer for problem in found.problems]
            values["custom"] = self.custom(prompts, found.texts, gold, columns(found.problems))
        return values

    def metrics(self) -> dict[str, float]:
        """Batches that missed the deadline of a user's own reward."""
        return {} if self.custom is None else {"rewards/custom/late": float(self.custom.late)}

    def close(self) -> None:
        """Ends the process of a user's own reward."""
        if self.custom is not None:
            self.custom.close()


def columns(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """The columns of the problems' rows, as lists; None where a row has none.

    id, level, subject and solution are the problem's, whatever the row's are. A column that was
    read as the question or the gold answer and has the name of an argument is skipped.
    """
    rows: list[Mapping[str, Any]] = [
        {name: value for name, value in p.columns_read.items() if name not in ARGUMENTS}
        | {"id": p.id, "level": p.level, "subject": p.subject, "solution": p.solution, **p.extra}
        for p in problems
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
