"""The terms of the reward that are read off texts on the host: one number a completion each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax import answers
from distill_jax.data.problem import Problem
from distill_jax.reasoning import quality
from distill_jax.rewards.correctness import Correctness
from distill_jax.rewards.custom import CustomReward
from distill_jax.rewards.settings import RewardSettings


class HostTerms:
    """Correctness, reasoning, format and a user's own term, as far as they have a weight.

    Args:
        settings: which.
        several_hosts: whether other processes train the same model.
    """

    def __init__(self, settings: RewardSettings, *, several_hosts: bool = False):
        self.weights = settings.weights
        self.custom: CustomReward | None = None
        if self.weights["custom"]:
            patience = 1 if several_hosts else 3
            self.custom = CustomReward(settings.custom, settings.custom_deadline_s, patience)

    def __call__(
        self,
        problems: Sequence[Problem],
        texts: Sequence[str],
        judged: Correctness,
        ended_B: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """{name: f32 [B]}, NaN where a term does not apply; correctness always, unweighted too.

        Args:
            problems: one a completion.
            texts: completions without special tokens.
            judged: what the answer check said.
            ended_B: bool, whether the completion ended itself.
        """
        terms = {"correctness": judged.reward_B}
        if self.weights["reasoning"]:
            found = [quality.logical_consistency(text) for text in texts]
            terms["reasoning"] = _array(found)
        if self.weights["format"]:
            stated = [answers.extract(text) is not None for text in texts]
            terms["format"] = np.asarray(stated, np.float32) * ended_B.astype(np.float32)
        if self.custom is not None:
            prompts = [problem.question for problem in problems]
            gold = [problem.answer for problem in problems]
            terms["custom"] = self.custom(prompts, texts, gold, columns(problems))
        return terms

    def metrics(self) -> dict[str, float]:
        """What the records shall have beside the terms' means."""
        return {"rewards/custom/late": float(self.custom.late)} if self.custom else {}

    def close(self) -> None:
        """Ends the process of the user's reward."""
        if self.custom is not None:
            self.custom.close()


def columns(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """The problems' other columns, as lists; None where a row has none."""
    rows: list[Mapping[str, Any]] = [
        {"id": p.id, "level": p.level, "subject": p.subject, "solution": p.solution, **p.extra}
        for p in problems
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float32)
