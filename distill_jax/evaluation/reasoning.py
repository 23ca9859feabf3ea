"""Quality of reasoning over many completions, with intervals."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from distill_jax.evaluation import intervals
from distill_jax.reasoning.quality import Reasoning


def summary(
    rows: Sequence[Reasoning], problems: Sequence[Hashable] | None = None
) -> dict[str, dict[str, Any]]:
    """Each measure over N completions.

    Args:
        rows: of `reasoning`, one a completion.
        problems: the problem of each; completions of one problem are averaged first, since they
            are not independent. None: every completion is of a problem of its own.

    Returns:
        Measure -> {"mean", "low", "high" (95% interval over problems), "count" (completions that
        the measure applies to), "problems" (those that the interval counts)}; mean, low and high
        are None where it applies to none.
    """
    keys = list(range(len(rows))) if problems is None else list(problems)
    if len(keys) != len(rows):
        raise ValueError(f"{len(rows)} rows of {len(keys)} problems")
    out = {}
    for name in Reasoning._fields:
        of_problem: dict[Hashable, list[float]] = {}
        for key, row in zip(keys, rows, strict=True):
            value = getattr(row, name)
            if value is not None:
                of_problem.setdefault(key, []).append(value)
        count = sum(map(len, of_problem.values()))
        estimate: dict[str, Any] = dict.fromkeys(intervals.Estimate._fields)
        if of_problem:
            means = np.array([np.mean(values) for values in of_problem.values()])
            estimate = intervals.mean_interval(means)._asdict()
        out[name] = {**estimate, "count": count, "problems": len(of_problem)}
    return out
