"""Convergence, efficiency and stability, each worked by hand."""

import numpy as np
import pytest

from distill_jax.evaluation import learning


def points(*values, every=10):
    return np.array([(every * i, v) for i, v in enumerate(values)], float).reshape(-1, 2)


def test_convergence_by_hand():
    # Average with weight ½: 0, .5, .75, .875, .9375, .96875; 95% of .96875 is .9203: the fifth.
    assert learning.convergence_step(points(0, 1, 1, 1, 1, 1), weight=0.5) == 40
    np.testing.assert_allclose(
        learning.ema(np.array([0, 1, 1, 1.0]), 0.5), [0, 0.5, 0.75, 0.875], rtol=0
    )
    # What begins at 3 gains no less than what begins at 0.
    assert learning.convergence_step(points(3, 4, 4, 4, 4, 4), weight=0.5) == 40


def test_a_run_that_gains_nothing_never_converged():
    assert learning.convergence_step(points(1, 1, 1, 1)) is None
    assert learning.convergence_step(points(3, 2, 1, 0)) is None
    assert learning.convergence_step(points(0, 1)) is None


def test_efficiency_is_gain_per_million_tokens():
    # Average with weight ½ ends at .75; of two million tokens.
    assert learning.efficiency(points(0, 1, 1), 2_000_000, weight=0.5) == 0.375
    assert learning.efficiency(points(1, 0, 0), 500_000, weight=0.5) == -1.5
    assert learning.efficiency(points(0, 1), None) is None


def test_stability_is_what_a_straight_line_leaves():
    steady = [0.0] * 12
    assert learning.stability(points(*steady, 1, 2, 3)) == pytest.approx(0, abs=1e-12)
    # 0, 3, 0 around its flat line at 1: −1, 2, −1; √(6/3).
    assert learning.stability(points(*steady, 0, 3, 0)) == pytest.approx(np.sqrt(2))
    # The same on a slope, and whatever came before.
    assert learning.stability(points(*range(12), 0, 13, 20)) == pytest.approx(np.sqrt(2))
    assert learning.stability(points(*[0.0] * 14)) is None  # a fifth of 14 is 2 points


def test_summary_takes_what_the_rows_have():
    rows = [{"step": 0, "eval/accuracy": 0.0}]
    rows += [{"step": i, "reward": float(i), "num_tokens": 1000 * i} for i in range(1, 16)]
    got = learning.summary(rows)
    assert got["steps"] == 15 and got["num_tokens"] == 15_000
    assert set(got["metrics"]) == {"reward", "eval/accuracy"}
    reward = got["metrics"]["reward"]
    assert reward["first"] == 1.0 and 10 < reward["last"] < 15
    gain = reward["last"] - 1.0
    assert reward["gain_per_million_tokens"] == pytest.approx(gain / 0.015)
    assert reward["stability"] == pytest.approx(0, abs=1e-12)
    alone = got["metrics"]["eval/accuracy"]
    assert alone["convergence_step"] is None and alone["stability"] is None
    assert learning.summary([{"step": 1, "loss": 2.0}]) is None
    assert learning.summary([]) is None


def test_a_step_on_the_bound_has_converged():
    # Gains 0, 95, 100 of the values themselves: 95 is 95%.
    points_K2 = np.array([[10, 0.0], [20, 95.0], [30, 100.0]])
    assert learning.convergence_step(points_K2, weight=1.0) == 20
