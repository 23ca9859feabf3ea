"""Convergence, efficiency and stability, each worked by hand."""

import numpy as np
import pytest

from distill_jax.evaluation import learning


def points(*values, every=10):
    return np.array([(every * i, v) for i, v in enumerate(values)], float).reshape(-1, 2)


def test_convergence_by_hand():
    # Up to five values: w = 1, no average. Ten: s = 2, w = 2/3.
    np.testing.assert_allclose(learning.ema(np.array([0, 1, 1, 1.0])), [0, 1, 1, 1], rtol=0)
    averaged = learning.ema(np.array([0.0] + [1.0] * 9))
    np.testing.assert_allclose(averaged[:4], [0, 2 / 3, 8 / 9, 26 / 27])
    # 26/27 is the first above 95%.
    assert learning.convergence_step(points(0, *[1] * 9)) == 30
    # What begins at 3 gains no less than what begins at 0.
    assert learning.convergence_step(points(3, *[4] * 9)) == 30


def test_a_run_that_gains_nothing_never_converged():
    assert learning.convergence_step(points(1, 1, 1, 1)) is None
    assert learning.convergence_step(points(3, 2, 1, 0)) is None
    assert learning.convergence_step(points(0, 1)) is None


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


def test_gain_per_million_tokens_by_hand():
    def gain(*values, tokens):
        rows = [{"step": i, "reward": x} for i, x in enumerate(values)]
        rows[-1] |= {"num_tokens": tokens} if tokens else {}
        return learning.summary(rows)["metrics"]["reward"]["gain_per_million_tokens"]

    assert gain(0, 1, 0.75, tokens=2_000_000) == 0.375
    assert gain(1, 0, 0.25, tokens=500_000) == -1.5
    assert gain(0, 1, tokens=None) is None and gain(1, tokens=9) is None


def test_a_step_on_the_bound_has_converged():
    # Gains 0, 95, 100 of the values themselves: 95 is 95%.
    points_K2 = np.array([[10, 0.0], [20, 95.0], [30, 100.0]])
    assert learning.convergence_step(points_K2) == 20
