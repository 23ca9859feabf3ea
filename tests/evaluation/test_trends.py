"""Trends of a metric: values by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from distill_jax.evaluation.trends import MIN_ROWS, trend, values


def rows(series, name="x"):
    return [{"step": 10 * i, name: x} for i, x in enumerate(series)]


def test_fifths_and_rank_correlation_by_hand():
    got = trend(rows([5, 1, 2, 3, 4, 6, 7, 8, 9, 10, 99]), "x")  # 11 rows: two in each fifth
    assert (got.first, got.last, got.rows) == (3.0, 54.5, 11)
    # Ranks differ from the steps' by 4, 1, 1, 1, 1: ρ = 1 − 6·20/(11·120)
    assert got.rho == pytest.approx(1 - 120 / 1320)
    t = got.rho * math.sqrt(9 / (1 - got.rho**2))
    assert got.p_value == pytest.approx(2 * stats.t.sf(t, 9))
    assert got.direction == 1
    assert got.ratio == pytest.approx(54.5 / 3)


def test_neither_noise_nor_a_constant_is_a_trend():
    noise = np.random.default_rng(0).standard_normal(40)
    assert trend(rows(noise), "x").direction == 0
    constant = trend(rows([2.0] * 20), "x")
    assert (constant.rho, constant.p_value, constant.direction) == (0.0, 1.0, 0)


def test_a_trend_that_turned_back_is_none():
    # Ranks fall, but the outlier lifts the last fifth above the first.
    series = [*range(20, 4, -1), 0, 0, 0, 200]
    found = trend(rows(series), "x")
    assert found.rho < 0 and found.p_value < 0.01 and found.last > found.first
    assert found.direction == 0


def test_a_jump_at_the_start_is_a_trend_that_ranks_do_not_see():
    # Accuracy of the preset tiny, its first 35 steps, a row every five.
    series = [0.273, 0.789, 0.906, 0.797, 0.773, 0.766, 0.695, 0.781]
    found = trend(rows(series), "x")
    assert found.p_value > 0.01 and found.direction == 1
    # By hand: the last half has mean .75375 and spread .03964, times √(1 + 1/4) .04432
    assert found.jump_p == pytest.approx(2 * stats.t.sf((0.75375 - 0.273) / 0.04432, 3), rel=5e-3)
    assert trend(rows([-x for x in series]), "x").direction == -1
    assert trend(rows([0.0, *[1.0] * 9]), "x").jump_p == 0.0


def test_false_alarms_are_few():
    noise = np.random.default_rng(1).standard_normal((400, 12))
    assert np.mean([trend(rows(x), "x").direction != 0 for x in noise]) < 0.04


def test_few_rows_have_no_trend():
    short = trend(rows(range(MIN_ROWS - 1)), "x")
    assert short.rho is None and not short.long_enough and short.direction == 0
    assert trend(rows(range(MIN_ROWS)), "x").direction == 1
    assert trend(rows([-x for x in range(MIN_ROWS)]), "x").direction == -1


def test_rows_without_a_number_are_left_out():
    found = [
        {"step": 0, "y": 1},
        {"step": 1, "x": None},
        {"step": 2, "x": 3},
        {"step": 3, "x": "a"},
    ]
    np.testing.assert_array_equal(values(found, "x"), [[2, 3]])
    assert trend(found, "x").rows == 1
    assert trend(found, "z") is None
    assert trend(rows([0, 0]), "x").ratio == 1.0
    assert trend(rows([0, 1]), "x").ratio == math.inf


def test_a_start_of_training_does_not_wait_for_scipy_stats():
    program = "import sys, distill_jax.stages.runner; sys.exit('scipy.stats' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
