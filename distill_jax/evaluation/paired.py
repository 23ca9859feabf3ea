"""Two evaluations of the same problems compared: table, difference, exact test."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distill_jax.evaluation import intervals


class Comparison(NamedTuple):
    """What two runs got right of the same problems.

    Attributes:
        both, only_a, only_b, neither: problems; they sum to the number of problems.
        difference: share right of b less that of a, with Newcombe's 95% interval and the p-value
            of the exact McNemar test.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    difference: intervals.Difference

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "difference": self.difference._asdict()}


def compare(right_a: Sequence[bool], right_b: Sequence[bool]) -> Comparison:
    """Compares what two runs got right of the same problems, at least one, in the same order."""
    a, b = np.array(right_a, bool), np.array(right_b, bool)
    both, only_a = int(np.sum(a & b)), int(np.sum(a & ~b))
    only_b, neither = int(np.sum(~a & b)), int(np.sum(~a & ~b))
    low, high = newcombe(both, only_a, only_b, neither)
    p_value = intervals.mcnemar(a, b).p_value
    mean = (only_b - only_a) / len(a)
    return Comparison(both, only_a, only_b, neither, intervals.Difference(mean, low, high, p_value))


class Lengths(NamedTuple):
    """Tokens of right answers to the problems that two runs both got right.

    Attributes:
        problems: number of these.
        before, after: mean tokens; of a problem the mean over its right completions.
        difference: after less before, paired by problem.
    """

    problems: int
    before: float
    after: float
    difference: intervals.Difference

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "difference": self.difference._asdict()}


def lengths(before: Sequence[float | None], after: Sequence[float | None]) -> Lengths | None:
    """Compares the lengths of right answers; None where no problem is right in both.

    A shorter answer is worth something only where it is right, and a run that loses its long
    problems has not become shorter: so the same problems count on both sides.

    Args:
        before, after: mean tokens of each problem's right completions, None where none is right;
            the same problems in the same order.
    """
    pairs = zip(before, after, strict=True)
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return None
    before_N, after_N = np.array(both, float).T
    # An interval is not wider than the longest answer.
    difference = intervals.paired(before_N, after_N, float(np.max(both)))
    return Lengths(len(both), float(before_N.mean()), float(after_N.mean()), difference)


def newcombe(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """95% interval of p_b − p_a from paired outcomes, by score intervals.

    With Wilson's [l, u] of each share p and the table's correlation φ (continuity corrected where
    positive: the numerator less n/2, not below 0):
    low = d − √((p_b−l_b)² − 2φ(p_b−l_b)(u_a−p_a) + (u_a−p_a)²), high likewise with the other ends.
    φ is 0 where a margin is empty. Unlike a t-interval it is not of width 0 where nothing changed.

    Source: Newcombe 1998, Statistics in Medicine 17:2635–2650, method 10.
    """
    total = both + only_a + only_b + neither
    a = intervals.wilson(both + only_a, total)
    b = intervals.wilson(both + only_b, total)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    product = float(both * neither - only_a * only_b)
    if product > 0:
        product = max(product - total / 2, 0.0)
    phi = product / math.sqrt(margins) if margins else 0.0

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down * down - 2 * phi * down * up + up * up))

    d = (only_b - only_a) / total
    low = d - reach(b.mean - b.low, a.high - a.mean)
    high = d + reach(b.high - b.mean, a.mean - a.low)
    return max(-1.0, low), min(1.0, high)
