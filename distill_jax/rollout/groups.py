"""The groups of a step: problems with their completions; dynamic sampling of groups that differ."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.rollout.sampler import Rollout
from distill_jax.tasks import Judged


class Drawn(NamedTuple):
    """P groups of G completions, B = P·G, prompt-major."""

    problems: list[Problem]
    prompts: list[list[int]]
    rollout: Rollout
    texts: list[str]

    @property
    def samples(self) -> int:
        """G."""
        return len(self.texts) // len(self.problems)

    def repeated(self) -> list[Problem]:
        """The problem of each completion."""
        return [problem for problem in self.problems for _ in range(self.samples)]


class Collected(NamedTuple):
    """What a step trains on, and all K ≥ P problems that it drew for that.

    Attributes:
        drawn: the P groups that are trained on.
        judged: verdicts on their completions.
        ids_K: number of each problem drawn.
        owner_P: which of the K each trained group is.
        differs_K: bool, whether some samples of the group are right and some wrong.
        accuracy_K: share of the group's samples that are right.
    """

    drawn: Drawn
    judged: Judged
    ids_K: np.ndarray
    owner_P: np.ndarray
    differs_K: np.ndarray
    accuracy_K: np.ndarray

    def correctness_K(self) -> np.ndarray:
        """2√(p(1−p)) of each problem drawn: GRPO's E|Â| of correctness alone."""
        return 2 * np.sqrt(self.accuracy_K * (1 - self.accuracy_K))

    def advantage_K(self, signal_P: np.ndarray) -> np.ndarray:
        """Mean |advantage| of each problem drawn, from that of the trained groups.

        0 for a group that dynamic sampling discarded because its samples agree (else an arm would
        look better the more of its groups are discarded); NaN for a useful group for which there
        was no room.
        """
        out_K = np.where(self.differs_K, np.nan, 0.0)
        out_K[self.owner_P] = signal_P
        return out_K


def collect(drawn: Drawn, judged: Judged, ids_P: np.ndarray) -> Collected:
    """The groups of one round, all trained on."""
    accuracy_P, differs_P = _accuracy(judged, drawn.samples)
    return Collected(drawn, judged, ids_P, np.arange(len(ids_P)), differs_P, accuracy_P)


def replace_equal(
    found: Collected,
    rounds: int,
    draw: Callable[[np.ndarray, int], tuple[np.ndarray, Drawn, Judged]],
) -> Collected:
    """Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): groups whose samples are all right
    or all wrong are replaced by groups of further problems that differ.

    Args:
        found: the first round.
        rounds: most further rounds.
        draw: (ids drawn before, number of the round) -> another P problems, judged.
    """
    P = len(found.owner_P)
    useful = np.flatnonzero(found.differs_K)
    for number in range(1, rounds + 1):
        if len(useful) >= P:
            break
        ids_P, more, judged = draw(found.ids_K, number)
        accuracy_P, differs_P = _accuracy(judged, more.samples)
        places = np.setdiff1d(np.arange(P), useful).tolist()
        pairs = list(zip(places, np.flatnonzero(differs_P).tolist(), strict=False))
        owner_P = found.owner_P.copy()
        for place, source in pairs:
            owner_P[place] = len(found.ids_K) + source
        useful = np.concatenate([useful, np.array([place for place, _ in pairs], np.int64)])
        drawn, verdicts = _replace(found, more, judged, pairs)
        found = Collected(
            drawn,
            verdicts,
            np.concatenate([found.ids_K, ids_P]),
            owner_P,
            np.concatenate([found.differs_K, differs_P]),
            np.concatenate([found.accuracy_K, accuracy_P]),
        )
    return found


def _accuracy(judged: Judged, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of each group, and whether its samples differ."""
    accuracy_P = np.asarray(judged.right_B.reshape(-1, samples).mean(axis=1))
    return accuracy_P, (accuracy_P > 0) & (accuracy_P < 1)


def _replace(
    found: Collected, more: Drawn, judged: Judged, pairs: list[tuple[int, int]]
) -> tuple[Drawn, Judged]:
    """For each (place, source), the group `source` of `more` in that place."""
    drawn, G = found.drawn, more.samples
    problems, prompts, texts = list(drawn.problems), list(drawn.prompts), list(drawn.texts)
    details = list(found.judged.details)
    mine = [np.array(a) for a in (*drawn.rollout, found.judged.right_B, found.judged.undecided_B)]
    theirs = [*more.rollout, judged.right_B, judged.undecided_B]
    for place, source in pairs:
        problems[place], prompts[place] = more.problems[source], more.prompts[source]
        here, there = (slice(at * G, (at + 1) * G) for at in (place, source))
        texts[here], details[here] = more.texts[there], judged.details[there]
        for old, new in zip(mine, theirs, strict=True):
            old[here] = new[there]
    right_B, undecided_B = mine[-2:]
    new_drawn = Drawn(problems, prompts, Rollout(*mine[:-2]), texts)
    return new_drawn, Judged(right_B, undecided_B, details)
