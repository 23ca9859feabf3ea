"""ProcessBench (arXiv 2412.06559): does a reward model find a solution's first wrong step?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The label of a solution without a wrong step.
NONE_WRONG = -1


class F1Score(NamedTuple):
    """Exact matches among solutions with an error and among those without, and their F1.

    acc_error or acc_correct is None where no solution is of that class; f1 is 0 then, and where
    both are 0.
    """

    f1: float
    acc_error: float | None
    acc_correct: float | None


def first_wrong(score_S: Sequence[float], threshold: float) -> int:
    """The first step with a score below the threshold, from 0; −1 where there is none."""
    return next((i for i, score in enumerate(score_S) if score < threshold), NONE_WRONG)


def f1(predicted_N: Sequence[int], label_N: Sequence[int]) -> F1Score:
    """2ab/(a+b) of the accuracies a on solutions with an error and b on those without."""
    match = np.asarray(predicted_N) == np.asarray(label_N)
    wrong = np.asarray(label_N) != NONE_WRONG
    a = float(match[wrong].mean()) if wrong.any() else None
    b = float(match[~wrong].mean()) if (~wrong).any() else None
    value = 2 * a * b / (a + b) if a and b else 0.0
    return F1Score(value, a, b)


def best_threshold(scores: Sequence[Sequence[float]], label_N: Sequence[int]) -> float:
    """The threshold of the highest F1 on these solutions; the lowest of equals.

    To be chosen on validation, never on the solutions that are reported.
    """
    values = sorted({round(float(s), 6) for row in scores for s in row})
    tries = [0.5, *values, *(value + 1e-6 for value in values)]
    found = [(f1([first_wrong(row, t) for row in scores], label_N).f1, -t) for t in sorted(tries)]
    return -max(found)[1]


def auc(score_N: Sequence[float], right_N: Sequence[bool]) -> float | None:
    """Probability that a right step scores above a wrong one, ties one half; None for one class.

    The rank statistic of Mann and Whitney, O(N log N).
    """
    score, right = np.asarray(score_N, float), np.asarray(right_N, bool)
    if right.all() or not right.any():
        return None
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    positives = int(right.sum())
    total = float(rank[place][right].sum()) - positives * (positives + 1) / 2
    return total / (positives * (len(right) - positives))


def auc_within(groups: Sequence[tuple[Sequence[float], Sequence[bool]]]) -> float | None:
    """`auc` over the pairs of right and wrong solutions of one problem, all problems together.

    What a choice among the solutions of a problem can use: an `auc` over all solutions also rewards
    telling hard problems from easy ones.

    Args:
        groups: scores and correctness of the solutions of each problem.

    Returns:
        The share of the pairs, ties one half; None where no problem has both.
    """
    above = pairs = 0.0
    for score_N, right_N in groups:
        share = auc(score_N, right_N)
        if share is not None:
            right = int(np.sum(right_N))
            count = right * (len(right_N) - right)
            above, pairs = above + share * count, pairs + count
    return above / pairs if pairs else None
