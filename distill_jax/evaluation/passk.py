"""pass@k and maj@k of problems that were sampled several times."""

from collections.abc import Callable, Sequence

import numpy as np

from distill_jax import answers
from distill_jax.core.errors import ConfigError
from distill_jax.evaluation import intervals

Same = Callable[[str, str], bool]


def pass_at_k(samples_P: np.ndarray, right_P: np.ndarray, k: int) -> intervals.Estimate:
    """pass@k: the mean over problems of 1 − C(n−c, k)/C(n, k), with its 95% interval.

    The chance that one of k samples is right, without bias from the n ≥ k that were drawn
    (Chen et al. 2021, arXiv 2107.03374). The interval is t over problems: a problem counts once.

    Args:
        samples_P: n of each problem, int [P].
        right_P: c of each problem, int [P], 0..n.
        k: samples that may be tried.

    Raises:
        ConfigError: no problem; k < 1, or more than a problem has samples; c outside 0..n.
    """
    samples_P, right_P = np.asarray(samples_P), np.asarray(right_P)
    _check(samples_P, right_P, k)
    values = [
        intervals.pass_at_k(int(n), int(c), k) for n, c in zip(samples_P, right_P, strict=True)
    ]
    return intervals.mean_interval(np.array(values))


def majority(found: Sequence[str | None], same: Same | None = None) -> int | None:
    """The first sample whose answer most samples agree with, or None where none has an answer.

    Equivalent answers ("0.5", "1/2") vote together: each joins the first group whose first member
    it is known to equal. Of groups of one size the one seen first wins. Samples without an answer
    do not vote.

    Args:
        found: each sample's extracted answer, None without one.
        same: whether two answers are the same; default `answers.equivalent`, where undecided is no.
    """
    same = same or _same
    groups: list[list[int]] = []
    group_of: dict[str, list[int]] = {}  # written alike: no check needed
    for index, answer in enumerate(found):
        if answer is None:
            continue
        if answer not in group_of:
            for group in groups:
                if same(str(found[group[0]]), answer):
                    break
            else:
                group = []
                groups.append(group)
            group_of[answer] = group
        group_of[answer].append(index)
    return max(groups, key=len)[0] if groups else None  # max takes the first of equals


def maj_at_k(
    found_PN: Sequence[Sequence[str | None]],
    right_PN: Sequence[Sequence[bool]],
    k: int,
    same: Same | None = None,
) -> intervals.Estimate:
    """maj@k: how often the majority of the first k samples is right, with its 95% interval.

    One draw of k samples a problem, the first ones, and no expectation over all subsets of k: its
    interval (Wilson, over problems) is wider than that would be, and right. A problem without any
    answer is wrong.

    Args:
        found_PN: each problem's extracted answers in the order sampled, None without one.
        right_PN: whether each was judged right.
        k: samples that vote.
        same: see `majority`.

    Raises:
        ConfigError: no problem; k < 1, or more than a problem has samples; rows that differ.
    """
    samples = [len(row) for row in found_PN]
    if samples != [len(row) for row in right_PN]:
        raise ConfigError("answers and verdicts of different numbers of samples")
    _check(np.array(samples), np.zeros(len(samples), int), k)
    right = 0
    for found, verdicts in zip(found_PN, right_PN, strict=True):
        winner = majority(found[:k], same)
        right += winner is not None and bool(verdicts[winner])
    return intervals.wilson(right, len(samples))


def extracted(text: str) -> str | None:
    """The final answer of a completion as written, or None: what `majority` takes."""
    answer = answers.extract(text)
    return answer.text if answer else None


def _same(one: str, other: str) -> bool:
    return answers.equivalent(one, other).right


def _check(samples_P: np.ndarray, right_P: np.ndarray, k: int) -> None:
    if len(samples_P) == 0 or samples_P.shape != right_P.shape:
        got = f"samples {samples_P.shape}, right {right_P.shape}"
        raise ConfigError(got, wanted="one of each for at least one problem")
    if not 1 <= k <= samples_P.min():
        raise ConfigError(f"k={k}", wanted=f"1 to {samples_P.min()}, the samples of each problem")
    if np.any((right_P < 0) | (right_P > samples_P)):
        wrong = int(np.argmax((right_P < 0) | (right_P > samples_P)))
        raise ConfigError(f"problem {wrong}: {right_P[wrong]} right of {samples_P[wrong]} samples")
