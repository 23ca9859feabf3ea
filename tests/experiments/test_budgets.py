"""Arms at an equal budget, by hand."""

from typing import Any

import pytest

from distill_jax.experiments import budgets, comparison
from distill_jax.experiments.budgets import FLOPS, SECONDS, VALUE


def row(arm: str, seed: int, *points: tuple[float | None, float, float], **more: Any) -> Any:
    """points: (FLOPs, tokens, accuracy); half a second each 10 FLOPs."""
    curve = [
        {"flops": x, "seconds": None if x is None else x / 20, "tokens": tokens, "accuracy": y}
        for x, tokens, y in points
    ]
    return {
        "arm": arm, "seed": seed, "curve": curve, "tokens": {"all": points[-1][1] if points else 0},
        "flops": {"missing": ""}, **more,
    }  # fmt: skip


FAST = row("fast", 0, (0, 0, 0.5), (10, 100, 0.6), (20, 200, 0.9))
SLOW = row("slow", 0, (0, 0, 0.5), (40, 100, 0.7))


def test_the_budget_is_what_all_have_reached() -> None:
    found = budgets.read([FAST, SLOW], FLOPS)
    assert found is not None and found.budget == 20 and found.skipped == []
    fast, slow = found.rows
    assert fast[VALUE] == pytest.approx(0.9) and fast["tokens at budget"] == 200
    # Half-way from 0 to 40.
    assert slow[VALUE] == pytest.approx(0.6) and slow["tokens at budget"] == 50


def test_between_two_evaluations_is_a_straight_line() -> None:
    short = row("short", 0, (0, 0, 0.5), (12, 10, 0.5))
    found = budgets.read([FAST, short], FLOPS)
    assert found is not None
    # .6 + (12 − 10)/(20 − 10)·(.9 − .6)
    assert found.rows[0][VALUE] == pytest.approx(0.66)


def test_a_run_without_training_is_what_the_curves_begin_with() -> None:
    start = [row("start", 0), row("start", 1)]
    other = row("fast", 1, (0, 0, 0.2), (20, 200, 0.4))
    written = row("written", 0, (15, 0, 0.5), (25, 100, 0.8))
    found = budgets.read([*start, FAST, SLOW, other, written], FLOPS)
    assert found is not None and found.budget == 20 and not found.skipped
    values = {(one["arm"], one["seed"]): one[VALUE] for one in found.rows}
    assert values["start", 0] == 0.5 and values["start", 1] == 0.2
    assert values["written", 0] == pytest.approx(0.65)  # half of .5 to .8
    change = comparison.changes(found.rows, ["start", "fast"], "start", VALUE)["fast"]
    assert change.interval.mean == pytest.approx((0.4 + 0.2) / 2)
    # A curve that begins after other training begins with another student.
    late = row("late", 0, (5, 50, 0.8), (60, 90, 0.9))
    found = budgets.read([start[0], FAST, late], FLOPS)
    assert found is not None and found.rows[0][VALUE] == 0.5
    # Its teacher has spent all of the budget, and the student is as it was.
    found = budgets.read([*start, row("cheap", 0, (0, 0, 0.5), (12, 9, 0.9)), written], FLOPS)
    assert found is not None and found.budget == 12
    assert {one["arm"]: one[VALUE] for one in found.rows}["written"] == 0.5


def test_runs_that_cannot_be_read_are_named() -> None:
    start, unlike = row("start", 0), row("unlike", 0, (0, 0, 0.4), (30, 10, 0.4))
    unknown = row("unknown", 0, (None, 0, 0.5), (None, 9, 0.5), flops={"missing": "no counts"})
    flat = row("flat", 0, tokens={"all": 70})
    late = row("late", 0, (21, 50, 0.8), (60, 90, 0.9))
    found = budgets.read([start, FAST, SLOW, unlike, unknown, flat, late], FLOPS)
    assert found is not None and {one["arm"] for one in found.rows} == {"fast", "slow", "unlike"}
    assert found.skipped == [
        "start, seed 0: the curves of its seed do not begin with one student's accuracy",
        "unknown, seed 0: no counts",
        "flat, seed 0: it has no learning curve",
        "late, seed 0: the stages before its curve have spent more",
    ]


def test_seconds_are_read_the_same_way() -> None:
    untimed = row("untimed", 0, (None, 0, 0.5), (None, 9, 0.5))
    found = budgets.read([FAST, SLOW, untimed], SECONDS)
    assert found is not None and found.budget == 1.0
    assert found.rows[1][VALUE] == pytest.approx(0.6)
    assert found.skipped == ["untimed, seed 0: its seconds are not recorded"]


def test_one_curve_is_compared_with_nothing() -> None:
    assert budgets.read([FAST, row("start", 0)], FLOPS) is None
    assert budgets.read([], SECONDS) is None
