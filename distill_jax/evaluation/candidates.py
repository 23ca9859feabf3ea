"""Candidate: one solution of a problem with its scores and verdict; votes, groups.

A candidate's slot is (agent, attempt); a revision has the slot of what it revises. Candidates are
sorted by (agent, attempt, round) before each decision, so that no result depends on the order in
which they were drawn, scored or given.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.evaluation import selection
from distill_jax.evaluation.selection import Votes
from distill_jax.rewards.process import StepScorer

UNSURE = "unsure"


@dataclass(frozen=True)
class Candidate:
    """A solution of one problem.

    Attributes:
        agent, attempt: numbers of the agent and of its attempt.
        round: 0 for a first draw, r for the r-th revision.
        text, tokens: the completion; token ids, EOS included.
        truncated: whether it ended without EOS.
        answer: the final answer as written, or None.
        failures: (kind, detail) of each, seen without gold: see `tasks.Observed`.
        steps: scores of its steps; () without a reward model.
        unscored: number of its last steps, for which the reward model had no room.
        score: of the whole solution; NaN without a reward model, or without a step.
        verdict: of the verifier: correct, incorrect or unsure; None where it was not asked.
        verdict_tokens: number of tokens that the verifier wrote.
        revised_from: round of the candidate of this slot that it revises; None for a first one.
        right: whether it is right by the gold answer; None without one, or where the check is
            undecided. Set after selection, which does not read it.
        details: what else the judge found, JSON-able; set with `right`.
    """

    agent: int
    attempt: int
    text: str
    tokens: tuple[int, ...]
    truncated: bool = False
    answer: str | None = None
    failures: tuple[tuple[str, str], ...] = ()
    round: int = 0
    steps: tuple[float, ...] = ()
    unscored: int = 0
    score: float = math.nan
    verdict: str | None = None
    verdict_tokens: int = 0
    revised_from: int | None = None
    right: bool | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slot(self) -> tuple[int, int]:
        """(agent, attempt)."""
        return self.agent, self.attempt

    @property
    def cost(self) -> int:
        """Tokens that were generated for it, the verifier's included."""
        return len(self.tokens) + self.verdict_tokens

    def row(self, name: str, *, kept: bool) -> dict[str, Any]:
        """The candidate as JSON-able values, with the number of its tokens.

        name: of the agent; kept: whether it votes.
        """
        return {
            "agent": name,
            "attempt": self.attempt,
            "round": self.round,
            "revised_from": self.revised_from,
            "text": self.text,
            "answer": self.answer,
            "tokens": len(self.tokens),
            "truncated": self.truncated,
            "steps": list(self.steps),
            "unscored_steps": self.unscored,
            "score": None if math.isnan(self.score) else self.score,
            "verdict": self.verdict,
            "verdict_tokens": self.verdict_tokens,
            "kept": kept,
            "correct": self.right,
            # Seconds would differ in every run.
            "details": {k: v for k, v in self.details.items() if k != "seconds"},
        }


def ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates sorted by agent, attempt and round."""
    return sorted(candidates, key=lambda one: (one.agent, one.attempt, one.round))


def votes(candidates: Sequence[Candidate], weights: Sequence[float]) -> Votes:
    """The votes of `ordered` candidates; weights: of the agents.

    A candidate that was not verified has the verdict of the best-scored verified one of its group:
    a verdict is on the answer that they share.
    """
    group_N = np.array(groups(tuple(one.answer for one in candidates)), np.int64)
    of_group: dict[int, str] = {}
    asked = [(g, c) for g, c in zip(group_N.tolist(), candidates, strict=True) if c.verdict]
    for group, one in sorted(asked, key=lambda pair: -_score(pair[1])):
        of_group.setdefault(group, str(one.verdict))
    verdicts = [
        one.verdict or (of_group.get(group, UNSURE) if group >= 0 else UNSURE)
        for group, one in zip(group_N.tolist(), candidates, strict=True)
    ]
    score_N = np.array([one.score for one in candidates], np.float64)
    weight_N = np.array([weights[one.agent] for one in candidates], np.float64)
    return Votes(group_N, score_N, weight_N, verdicts)


def choose(
    candidates: Sequence[Candidate], weights: Sequence[float], selector: str
) -> Candidate | None:
    """The candidate that a selector takes; None where none has an answer."""
    candidates = ordered(candidates)
    chosen = selection.select(votes(candidates, weights), selector)
    return None if chosen is None else candidates[chosen]


@functools.lru_cache(maxsize=2**14)
def groups(found: tuple[str | None, ...]) -> tuple[int, ...]:
    """See `selection.groups`."""
    # Each selector calls this; answers that are not numbers take milliseconds to compare.
    return tuple(selection.groups(found).tolist())


def strongest(
    candidates: Sequence[Candidate], weights: Sequence[float], count: int
) -> list[Candidate]:
    """The best-scored candidate of each of the `count` strongest groups of equal answers.

    Strength is the sum of weight × score, or of weight where nothing is scored; of equal groups the
    earlier one is stronger.
    """
    candidates = ordered(candidates)
    found = votes(candidates, weights)
    scored = any(not math.isnan(one.score) for one in candidates)
    strength: dict[int, float] = {}
    best: dict[int, Candidate] = {}
    for group, weight, one in zip(found.group_N.tolist(), found.weight_N, candidates, strict=True):
        if group < 0:
            continue
        strength[group] = strength.get(group, 0.0) + weight * (_score(one) if scored else 1.0)
        if group not in best or _score(one) > _score(best[group]):
            best[group] = one
    order = sorted(strength, key=lambda group: (-strength[group], group))
    return [best[group] for group in order[:count]]


def scored(
    scorer: StepScorer, prompt_N: Sequence[Sequence[int]], candidates: Sequence[Candidate]
) -> list[Candidate]:
    """The candidates with the scores of their steps, from one call for all.

    prompt_N: of each candidate's problem, as the reward model was trained on.

    Raises:
        DataError: a score is not a number in [0, 1].
    """
    if not candidates:
        return []
    steps_N = scorer.score(prompt_N, [one.tokens for one in candidates])
    score_N = scorer.aggregate(steps_N)
    out = []
    for one, steps, score in zip(candidates, steps_N, score_N, strict=True):
        there = np.isfinite(steps)
        count = int(there.sum())
        values = [float(x) for x in steps[:count]]
        whole = [float(score)] if values else []
        wrong = [x for x in (*values, *whole) if not 0.0 <= x <= 1.0]
        if wrong or not there[:count].all():
            raise DataError(
                f"the reward model gives {wrong[0] if wrong else float('nan')} to a candidate of "
                f"{len(steps)} steps",
                wanted="scores in [0, 1]",
                fix="check its weights and the dtype that it computes in",
            )
        out.append(
            dataclasses.replace(
                one,
                steps=tuple(values),
                unscored=len(steps) - count,
                score=float(score) if values else math.nan,
            )
        )
    return out


def refuse_unscored(candidates: Sequence[Candidate]) -> None:
    """Raises DataError if candidates have steps and none of these has a score."""
    if any(one.unscored for one in candidates) and not any(one.steps for one in candidates):
        raise DataError(
            f"the reward model scores no step of {len(candidates)} candidates: they are NaN",
            wanted="some scores",
            fix="shorten prompts and completions to what the reward model has room for",
        )


def _score(one: Candidate) -> float:
    return 0.0 if math.isnan(one.score) else one.score
