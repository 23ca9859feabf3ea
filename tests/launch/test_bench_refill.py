"""Refilled rows do less work than batches; counted, not timed."""

import numpy as np
import pytest

from launch.bench import refill

pytestmark = pytest.mark.slow


def test_lengths_have_the_mean_asked_for() -> None:
    found_N = refill.lengths(512, 100, 0.4)
    assert found_N.max() == 100 and found_N.min() >= 1
    assert abs(found_N.mean() / 100 - 0.4) < 0.01


def test_rows_times_steps_are_at_least_1_6_times_fewer_than_of_static_batches() -> None:
    length_N = refill.lengths(8 * 12, 64, 0.4)
    found = refill.count(length_N, rows=8, segment=4)
    static, batches, refilled = (found[name] for name in ("static", "batches", "refilled"))
    assert static.row_steps == 8 * static.steps == 8 * length_N.reshape(-1, 8).max(axis=1).sum()
    assert np.sum(length_N) <= refilled.row_steps < batches.row_steps < static.row_steps
    assert static.row_steps >= 1.6 * refilled.row_steps
    assert static.steps >= 1.6 * refilled.steps
