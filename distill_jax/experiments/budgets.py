"""Arms read at equal budgets: validation accuracy where each has spent as much."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FLOPS, SECONDS = "flops", "seconds"
# Of `Reading.rows`: the accuracy at the budget, for `comparison.changes`.
VALUE = "at budget"
Rows = Sequence[Mapping[str, Any]]


class Reading(NamedTuple):
    """Runs at an equal budget.

    Attributes:
        budget: the most that all runs with a curve have spent.
        rows: the runs that were read, each with VALUE, a share, and "tokens at budget".
        skipped: "ARM, seed N: why" of the others.
    """

    budget: float
    rows: list[dict[str, Any]]
    skipped: list[str]


def read(rows: Rows, unit: str) -> Reading | None:
    """Runs at the largest budget that all their curves reach; None where fewer than two have one.

    Between two evaluations accuracy and tokens are taken on a straight line. Before its first
    evaluation a curve has that one's accuracy: what the first step has cost there, the teacher has
    spent on answers. A run without training has spent nothing, and its student is the one that the
    curves of its seed begin with.

    Args:
        rows: of `results.collect`.
        unit: FLOPS or SECONDS.
    """
    curves = [row for row in rows if row["curve"] and _known(row, unit)]
    if len(curves) < 2:
        return None
    budget = min(row["curve"][-1][unit] for row in curves)
    found, skipped = list[dict[str, Any]](), list[str]()
    for row in rows:
        value, tokens, why = None, 0.0, ""
        if any(row is one for one in curves):
            value, tokens, why = _at(row["curve"], unit, budget)
        elif not row["tokens"]["all"]:
            value, why = _start(rows, row["seed"])
        else:
            why = _why(row, unit)
        if value is None:
            skipped.append(f"{row['arm']}, seed {row['seed']}: {why}")
        else:
            found.append({**row, VALUE: value, "tokens at budget": tokens})
    return Reading(budget, found, skipped)


def _known(row: Mapping[str, Any], unit: str) -> bool:
    return all(point.get(unit) is not None for point in row["curve"])


def _why(row: Mapping[str, Any], unit: str) -> str:
    if not row["curve"]:
        return "it has no learning curve"
    return row["flops"]["missing"] if unit == FLOPS else "its seconds are not recorded"


def _at(
    curve: Sequence[Mapping[str, Any]], unit: str, budget: float
) -> tuple[float | None, float, str]:
    """(accuracy, tokens, why there is none)."""
    spent, accuracy, tokens = (
        [float(point[name]) for point in curve] for name in (unit, "accuracy", "tokens")
    )
    if budget < spent[0] and tokens[0]:
        return None, 0.0, "the stages before its curve have spent more"
    return float(np.interp(budget, spent, accuracy)), float(np.interp(budget, spent, tokens)), ""


def _start(rows: Rows, seed: int) -> tuple[float | None, str]:
    """(accuracy of the student that the curves of a seed begin with, why there is none)."""
    firsts = [row["curve"][0] for row in rows if row["seed"] == seed and row["curve"]]
    values = {point["accuracy"] for point in firsts if not point["tokens"]}
    if len(values) == 1:
        return values.pop(), ""
    return None, "the curves of its seed do not begin with one student's accuracy"
