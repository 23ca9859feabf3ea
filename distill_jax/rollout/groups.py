"""The groups of a step: problems with their completions; dynamic sampling of groups that differ."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
        useful_K: bool, whether the group's samples differ in what they are paid: some are right and
            some wrong; with term length also where all are right.
        accuracy_K: share of the group's samples that are right.
    """

    drawn: Drawn
    judged: Judged
    ids_K: np.ndarray
    owner_P: np.ndarray
    useful_K: np.ndarray
    accuracy_K: np.ndarray

    def correctness_K(self, arm_K: np.ndarray | None = None) -> np.ndarray:
        """2√(p(1−p)) of each problem drawn: GRPO's E|Â| of correctness alone.

        p is the share of the problem's samples that are right. arm_K, each problem's arm, is for
        one sample a problem, where p(1−p) is always 0: then p(1−p) is that of the arm, without bias
        from its n samples of the step; NaN of one. It is an upper bound: problems of an arm that
        differ count as spread.
        """
        p_K = self.accuracy_K
        spread_K = p_K * (1 - p_K)
        if arm_K is not None:
            n_K = np.bincount(arm_K)[arm_K]
            p_K = np.bincount(arm_K, weights=p_K)[arm_K] / n_K
            unbiased_K = p_K * (1 - p_K) * n_K / np.maximum(n_K - 1, 1)
            spread_K = np.where(n_K > 1, np.minimum(unbiased_K, 0.25), np.nan)
        return 2 * np.sqrt(spread_K)

    def advantage_K(self, signal_P: np.ndarray) -> np.ndarray:
        """Mean |advantage| of each problem drawn, from that of the trained groups.

        0 for a group that dynamic sampling discarded because it is not useful (else an arm would
        look better the more of its groups are discarded); NaN for a useful group for which there
        was no room.
        """
        out_K = np.where(self.useful_K, np.nan, 0.0)
        out_K[self.owner_P] = signal_P
        return out_K


def collect(
    drawn: Drawn, judged: Judged, ids_P: np.ndarray, *, all_right: bool = False
) -> Collected:
    """The groups of one round, all trained on; all_right: those with all right are useful, too."""
    accuracy_P, useful_P = _accuracy(judged, drawn.samples, all_right)
    return Collected(drawn, judged, ids_P, np.arange(len(ids_P)), useful_P, accuracy_P)


def replace_equal(
    found: Collected,
    rounds: int,
    draw: Callable[[np.ndarray, int], tuple[np.ndarray, Drawn, Judged]],
    *,
    all_right: bool = False,
) -> Collected:
    """Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): groups whose samples are all right
    or all wrong are replaced by groups of further problems that differ.

    Args:
        found: the first round.
        rounds: most further rounds.
        draw: (ids drawn before, number of the round) -> another P problems, judged.
        all_right: groups whose samples are all right are useful, as in `collect`: they stay.
    """
    P = len(found.owner_P)
    useful = np.flatnonzero(found.useful_K)
    for number in range(1, rounds + 1):
        if len(useful) >= P:
            break
        ids_P, more, judged = draw(found.ids_K, number)
        accuracy_P, useful_P = _accuracy(judged, more.samples, all_right)
        sources = np.flatnonzero(useful_P)
        places = np.setdiff1d(np.arange(P), useful)[: len(sources)]
        sources = sources[: len(places)]
        owner_P = found.owner_P.copy()
        owner_P[places] = len(found.ids_K) + sources
        useful = np.concatenate([useful, places])
        drawn, verdicts = _replace(found, more, judged, places, sources)
        found = Collected(
            drawn,
            verdicts,
            np.concatenate([found.ids_K, ids_P]),
            owner_P,
            np.concatenate([found.useful_K, useful_P]),
            np.concatenate([found.accuracy_K, accuracy_P]),
        )
    return found


def _accuracy(judged: Judged, samples: int, all_right: bool) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of each group, and whether it is useful."""
    accuracy_P = np.asarray(judged.right_B.reshape(-1, samples).mean(axis=1))
    return accuracy_P, (accuracy_P > 0) & ((accuracy_P < 1) | all_right)


def _replace(
    found: Collected, more: Drawn, judged: Judged, places: np.ndarray, sources: np.ndarray
) -> tuple[Drawn, Judged]:
    """The groups `sources` of `more` at `places` of those found."""
    drawn, P, G = found.drawn, len(found.owner_P), more.samples
    group_P = np.arange(P)
    group_P[places] = P + sources
    row_B = (group_P[:, None] * G + np.arange(G)).ravel()

    def taken(old: Any, new: Any, index: np.ndarray) -> Any:
        if isinstance(old, np.ndarray):
            return np.concatenate([old, new])[index]
        both = [*old, *new]
        return [both[i] for i in index]

    problems = taken(drawn.problems, more.problems, group_P)
    prompts = taken(drawn.prompts, more.prompts, group_P)
    texts = taken(drawn.texts, more.texts, row_B)
    rollout = (taken(*both, row_B) for both in zip(drawn.rollout, more.rollout, strict=True))
    verdicts = (taken(*both, row_B) for both in zip(found.judged, judged, strict=True))
    return Drawn(problems, prompts, Rollout(*rollout), texts), Judged(*verdicts)
