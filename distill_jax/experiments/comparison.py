"""Arms compared over seeds: means, intervals, paired differences, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from distill_jax.evaluation.intervals import holm

# pass@k: of as many samples as each problem has.
FIGURES = ("greedy", "pass@1", "pass@k")
Rows = Sequence[Mapping[str, Any]]


class Interval(NamedTuple):
    """A mean over seeds with its 95% t interval; low and high None for one seed."""

    mean: float
    low: float | None
    high: float | None


class Change(NamedTuple):
    """An arm less the reference, paired by seed; p by Student's t, None for one seed, and
    adjusted for all arms by Holm (1979); margin: see `equal_within`."""

    interval: Interval
    p_value: float | None
    adjusted: float | None
    margin: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is below 0.05."""
        return self.adjusted is not None and self.adjusted < 0.05


def over_seeds(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> Interval:
    """Mean of runs that differ in their seed, with the t interval of n − 1 degrees, cut at what
    the figure can be."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, None, None)
    half = float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, max(least, mean - half), min(most, mean + half))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's t that the mean difference is 0; None for one seed.

    Equal differences have no spread: 1 where they are 0, else the sign test's 2^(1−n).
    """
    n = len(differences)
    if n < 2:
        return None
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if spread < 1e-12:
        return 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
    return float(2 * special.stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def equal_within(differences: Sequence[float]) -> float | None:
    """The least margin within which the mean difference of shares is shown to lie, at most 1.

    By two one-sided t tests at 5% each (Schuirmann, 1987): the 90% t interval is within ± margin.
    A difference that is not significant may still be large; a small margin says that it is not.
    None for one seed, and for differences without a spread, which leave a t test nothing.
    """
    n, mean = len(differences), float(np.mean(differences))
    if n < 2 or np.std(differences) < 1e-12:
        return None
    half = float(special.stdtrit(n - 1, 0.95) * np.std(differences, ddof=1) / math.sqrt(n))
    return min(1.0, abs(mean) + half)


def of_arm(rows: Rows, arm: str) -> list[Mapping[str, Any]]:
    """The complete runs of an arm, by seed."""
    return sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])


def changes(rows: Rows, arms: Sequence[str], reference: str, figure: str) -> dict[str, Change]:
    """Each other arm less the reference, on the seeds that both have; without such a seed, skipped.

    rows: of `results.collect`; figure: one of FIGURES.
    """
    base = {row["seed"]: row[figure] for row in of_arm(rows, reference)}
    found: dict[str, list[float]] = {}
    for arm in arms:
        pairs = [
            row[figure] - base[row["seed"]] for row in of_arm(rows, arm) if row["seed"] in base
        ]
        if arm != reference and pairs:
            found[arm] = pairs
    p_values = {arm: paired_p(pairs) for arm, pairs in found.items()}
    tested = [arm for arm, p in p_values.items() if p is not None]
    adjusted = dict(zip(tested, holm([p_values[arm] or 0.0 for arm in tested]), strict=True))
    return {
        arm: Change(
            over_seeds(pairs, -1.0, 1.0), p_values[arm], adjusted.get(arm), equal_within(pairs)
        )
        for arm, pairs in found.items()
    }


def band(rows: Rows, points: int = 41) -> dict[str, np.ndarray] | None:
    """Learning curves of an arm's seeds, interpolated at common tokens: mean, least, most.

    None without a curve. Ends where the shortest of them does: nothing is extrapolated.
    """
    curves = [row["curve"] for row in rows if len(row["curve"]) > 1]
    if not curves:
        return None
    start = max(curve[0]["tokens"] for curve in curves)
    end = min(curve[-1]["tokens"] for curve in curves)
    at = np.linspace(start, end, points)
    known = [[[p[name] for p in curve] for name in ("tokens", "accuracy")] for curve in curves]
    lines = np.stack([np.interp(at, x, y) for x, y in known])
    return {"tokens": at, "mean": lines.mean(0), "low": lines.min(0), "high": lines.max(0)}
