"""Convergence step, gain per million tokens, and end stability of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.evaluation.trends import values

# Share of the whole gain at which a run counts as converged.
SHARE = 0.95
# Metrics for which higher is better.
METRICS = ("reward", "accuracy", "eval/accuracy")
# A line fits any two points exactly: with fewer than three there is no spread to measure.
_FEWEST = 3


def ema(value_K: np.ndarray) -> np.ndarray:
    """Exponential moving average that begins at the first value.

    e_0 = x_0; e_k = (1 − w)·e_{k−1} + w·x_k; w = 2/(s + 1), whose span s is a fifth of the values,
    at least one: few values are hardly averaged, since their end would lag far behind.
    """
    out_K = np.array(value_K, float)
    weight = 2 / (max(1.0, len(out_K) / 5) + 1)
    for k in range(1, len(out_K)):
        out_K[k] = (1 - weight) * out_K[k - 1] + weight * out_K[k]
    return out_K


def convergence_step(points_K2: np.ndarray) -> int | None:
    """The first step whose average has 95% of the whole gain; None without a gain.

    points_K2: (step, value), in the steps' order; None below three of them.
    """
    if len(points_K2) < _FEWEST:
        return None
    gain_K = ema(points_K2[:, 1])
    gain_K = gain_K - gain_K[0]
    if gain_K[-1] <= 0:
        return None
    return int(points_K2[np.argmax(gain_K >= SHARE * gain_K[-1]), 0])


def stability(points_K2: np.ndarray) -> float | None:
    """Standard deviation (ddof 0) of the last fifth of the values around their straight line.

    In the metric's unit, 0 is steadiest; None where that fifth has fewer than three points.
    """
    last_k2 = points_K2[-(len(points_K2) // 5) :] if len(points_K2) >= 5 else points_K2[:0]
    if len(last_k2) < _FEWEST:
        return None
    step_k, value_k = last_k2[:, 0] - last_k2[:, 0].mean(), last_k2[:, 1]
    slope = float(step_k @ value_k) / float(step_k @ step_k)
    return float(np.std(value_k - slope * step_k))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Convergence, efficiency and stability of each metric of METRICS in rows of metrics.jsonl.

    Returns:
        {"steps", "num_tokens", "metrics": {name: {"first", "last" (moving averages),
        "convergence_step", "gain_per_million_tokens", "stability"}}}; None without such a metric.
    """
    counted = values(rows, "num_tokens")
    tokens = int(counted[-1, 1]) if len(counted) else None
    found: dict[str, Any] = {}
    for name in METRICS:
        points_K2 = values(rows, name)
        if len(points_K2):
            first, last = map(float, ema(points_K2[:, 1])[[0, -1]])
            rate = (last - first) / (tokens / 1e6) if tokens and len(points_K2) > 1 else None
            found[name] = {
                "first": first,
                "last": last,
                "convergence_step": convergence_step(points_K2),
                "gain_per_million_tokens": rate,
                "stability": stability(points_K2),
            }
    if not found:
        return None
    return {"steps": int(rows[-1]["step"]), "num_tokens": tokens, "metrics": found}
