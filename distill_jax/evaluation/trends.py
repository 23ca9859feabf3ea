"""How a metric moved over a run: means of its first and last fifth, a rank test of the slope."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

# Below this many rows there is no trend: five ranks in perfect order already have p = 0.
MIN_ROWS = 8
# Rows of one run are not independent draws: the usual 0.05 would give false alarms.
P_VALUE = 0.01


class Trend(NamedTuple):
    """A metric over a run; the last three are None below MIN_ROWS.

    Attributes:
        name, rows: the metric, and how many rows have it.
        first, last: means of the first and last fifth of those rows (at least one row each).
        rho, p_value: Spearman's rank correlation with the step, 0 for a constant metric, with its
            two-sided p-value by Student's t.
        jump_p: p-value of the first fifth against the last half, by Student's t with the spread of
            the last half: many runs jump in their first rows and then stay, which ranks miss.
    """

    name: str
    rows: int
    first: float
    last: float
    rho: float | None
    p_value: float | None
    jump_p: float | None

    @property
    def long_enough(self) -> bool:
        """Whether there are enough rows for a trend."""
        return self.rho is not None

    @property
    def direction(self) -> int:
        """1 rising, −1 falling, 0 neither.

        The fifths moved that way, and either the ranks did, too (p < P_VALUE), or the run jumped.
        """
        if self.rho is None or self.p_value is None or self.jump_p is None:
            return 0
        moved = int(np.sign(self.last - self.first))
        slopes = self.p_value < P_VALUE and np.sign(self.rho) == moved
        return moved if slopes or self.jump_p < P_VALUE else 0

    @property
    def ratio(self) -> float:
        """last / first; inf from 0 to more, 1 from 0 to 0."""
        if self.first == 0:
            return 1.0 if self.last == 0 else math.inf
        return self.last / self.first

    def describe(self) -> str:
        """One line: first and last fifth, Spearman's rho and its p-value, whether it jumped."""
        text = f"{self.name} {self.first:.4g} → {self.last:.4g}"
        if self.rho is None or self.p_value is None:
            return text
        jumped = ", a jump" if self.direction and self.p_value >= P_VALUE else ""
        return f"{text}, {self.rho:+.2f} ({self.p_value:.1g}){jumped}"


def values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """[K, 2] of (step, value) of the rows that have a finite number under the name."""
    found = [
        (row["step"], float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
    return np.array(found, float).reshape(-1, 2)


def trend(rows: Sequence[Mapping[str, Any]], name: str) -> Trend | None:
    """The trend of a metric in rows of metrics.jsonl; None where no row has it."""
    return of_points(name, values(rows, name))


def of_points(name: str, points_K2: np.ndarray) -> Trend | None:
    """The trend of (step, value) points; None without any."""
    count = len(points_K2)
    if count == 0:
        return None
    fifth = max(1, count // 5)
    value_K = points_K2[:, 1]
    first, last = float(value_K[:fifth].mean()), float(value_K[-fifth:].mean())
    rho, p_value, jump_p = None, None, None
    if count >= MIN_ROWS:
        rho, p_value, jump_p = 0.0, 1.0, 1.0
        if np.ptp(value_K) > 0:
            from scipy import stats  # here: it takes half a second, and training never asks

            rho, p_value = map(float, stats.spearmanr(points_K2[:, 0], value_K))
            jump_p = _jump(value_K[:fifth], value_K[count // 2 :])
    return Trend(name, count, first, last, rho, p_value, jump_p)


def _jump(first_K: np.ndarray, late_K: np.ndarray) -> float:
    """Two-sided p-value that the early mean is one more draw from where the late ones are."""
    spread = float(np.std(late_K, ddof=1)) * math.sqrt(1 / len(first_K) + 1 / len(late_K))
    away = abs(float(first_K.mean() - late_K.mean()))
    if spread == 0.0:
        return 0.0 if away > 0 else 1.0
    return float(2 * special.stdtr(len(late_K) - 1, -away / spread))
