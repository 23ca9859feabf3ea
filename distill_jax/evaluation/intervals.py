"""Intervals and paired tests for accuracies; no assumption that samples of a problem differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # scipy.stats would add half a second to every start


class Estimate(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference (after − before), its 95% interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether p < 0.05."""
        return self.p_value < 0.05


def wilson(right: float, total: int) -> Estimate:
    """Wilson's 95% score interval of right/total (Wilson 1927), total at least 1."""
    z = special.ndtri(0.975)
    p = right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


def noise(total: int) -> float:
    """Half the width of Wilson's 95% interval at one half: the most that chance may move a share.

    30 problems: 0.17; 380: 0.05; 1319: 0.03.
    """
    found = wilson(total / 2, total)
    return (found.high - found.low) / 2


def mean_interval(score_N: np.ndarray) -> Estimate:
    """Mean of per-problem scores in [0, 1], t interval over problems.

    The samples of one problem are not independent, so a problem counts once. Equal scores have no
    spread: they take Wilson's interval of as many problems, which is wider than 0.
    """
    n, mean = len(score_N), float(np.mean(score_N))
    if np.ptp(score_N) == 0.0:
        return wilson(mean * n, n)
    half = float(special.stdtrit(n - 1, 0.975) * np.std(score_N, ddof=1) / math.sqrt(n))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def ratio_interval(total_N: np.ndarray, size_N: np.ndarray, most: float = math.inf) -> Estimate:
    """Mean over tokens, Σ total / Σ size, with a t interval over the N groups that hold them.

    Tokens of one answer are not independent, so an answer counts once: the interval is that of a
    ratio, std(total_i − mean·size_i)/(mean size·√N) (Cochran 1977, 6.4). Equal groups have no
    spread: a share (most = 1) takes Wilson's interval, another measure its own mean.

    Args:
        total_N: sum of a measure over each group's tokens, at least 0 each.
        size_N: tokens of each group, at least 1.
        most: the measure's upper bound.
    """
    n, mean = len(total_N), float(np.sum(total_N) / np.sum(size_N))
    rest_N = total_N - mean * size_N
    if n < 2 or np.ptp(rest_N) == 0.0:
        return wilson(min(mean, 1.0) * n, n) if most == 1.0 else Estimate(mean, mean, mean)
    error = float(np.std(rest_N, ddof=1)) / (float(np.mean(size_N)) * math.sqrt(n))
    half = float(special.stdtrit(n - 1, 0.975)) * error
    return Estimate(mean, max(0.0, mean - half), min(most, mean + half))


def paired(before_N: np.ndarray, after_N: np.ndarray, most: float = 1.0) -> Difference:
    """Paired t-test of per-problem scores in [0, most], on the same problems in the same order.

    Where every problem changed by the same amount there is no spread for a t-test: the p-value is
    the sign test's, 2^(1−n), and the interval's inner end is Wilson's for n of n. Where none
    changed the p-value is 1 and that interval's share of problems that might have is the bound.
    """
    delta_N = np.asarray(after_N, float) - np.asarray(before_N, float)
    n, mean = len(delta_N), float(np.mean(delta_N))
    if np.ptp(delta_N) == 0.0:
        share = wilson(n, n).low
        if mean == 0.0:
            return Difference(0.0, most * (share - 1.0), most * (1.0 - share), 1.0)
        inner = mean * share
        return Difference(mean, min(inner, mean), max(inner, mean), 2.0 ** (1 - n))
    error = float(np.std(delta_N, ddof=1)) / math.sqrt(n)
    half = float(special.stdtrit(n - 1, 0.975)) * error
    p_value = float(2 * special.stdtr(n - 1, -abs(mean) / error))
    # No difference is beyond the largest score, whatever few problems make of t.
    return Difference(mean, max(mean - half, -most), min(mean + half, most), p_value)


def mcnemar(before_N: np.ndarray, after_N: np.ndarray) -> Difference:
    """`paired` of two greedy runs, right or wrong, with the p-value of the exact McNemar test.

    It is the two-sided binomial of the discordant pairs.
    """
    before_N, after_N = np.asarray(before_N, bool), np.asarray(after_N, bool)
    gained = int(np.sum(~before_N & after_N))
    lost = int(np.sum(before_N & ~after_N))
    # For a fair coin both tails are equal; of no pairs bdtr(0, 0) is 1.
    tail = float(special.bdtr(min(gained, lost), gained + lost, 0.5))
    return paired(before_N, after_N)._replace(p_value=min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of m tests made together, in their order; 0.05 then bounds the chance of any error.

    The i-th smallest of them, i = 0…m−1, becomes max over j ≤ i of min(1, (m − j)·p_j).

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65–70.
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def pass_at_k(samples: int, right: int, k: int) -> float:
    """1 − C(n−c, k)/C(n, k): probability that one of k of n samples is right (Chen et al. 2021).

    ValueError where k is more than the samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k={k} of {samples} samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)
