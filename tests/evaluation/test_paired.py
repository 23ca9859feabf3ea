"""Comparison of two runs: the table, Newcombe's interval, McNemar's test."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.evaluation import intervals
from distill_jax.evaluation.paired import compare, lengths, newcombe


def test_table_and_test_by_hand():
    a = [True] * 7 + [False] * 13
    b = [True] * 6 + [False] * 1 + [True] * 8 + [False] * 5
    got = compare(a, b)
    assert (got.both, got.only_a, got.only_b, got.neither) == (6, 1, 8, 5)
    assert got.difference.mean == pytest.approx(7 / 20)
    # Nine discordant pairs, one of them against: 2·(1 + 9)/2⁹
    assert got.difference.p_value == pytest.approx(20 / 512)
    assert got.difference.significant
    assert got.difference[1:3] == newcombe(6, 1, 8, 5)
    assert got.as_dict()["difference"]["p_value"] == got.difference.p_value


def test_newcombe_by_hand():
    # 12 both, 9 only a, 2 only b, 21 neither of 44: p_a = 21/44, p_b = 14/44, d = −7/44.
    # φ: 12·21 − 9·2 = 234, less 22 = 212, over √(21·23·14·30) = 450.4 → .4707.
    phi = 212 / math.sqrt(21 * 23 * 14 * 30)
    a, b = intervals.wilson(21, 44), intervals.wilson(14, 44)
    down, up = b.mean - b.low, a.high - a.mean
    low = -7 / 44 - math.sqrt(down**2 - 2 * phi * down * up + up**2)
    down, up = b.high - b.mean, a.mean - a.low
    high = -7 / 44 + math.sqrt(down**2 - 2 * phi * down * up + up**2)
    assert newcombe(12, 9, 2, 21) == pytest.approx((low, high))
    assert newcombe(12, 9, 2, 21) == pytest.approx((-0.2954, -0.0112), abs=1e-4)


def test_no_change_still_has_a_width():
    low, high = newcombe(10, 0, 0, 0)
    assert low == pytest.approx(-high) and 0.2 < high < 0.4
    got = compare([True, True, False], [True, True, False])
    assert got.difference.mean == 0.0 and got.difference.p_value == 1.0
    assert got.difference.low < 0.0 < got.difference.high


counts = st.integers(0, 30)


@given(counts, counts, counts, counts)
def test_symmetric_and_around_the_difference(both, only_a, only_b, neither):
    total = both + only_a + only_b + neither
    if total == 0:
        return
    low, high = newcombe(both, only_a, only_b, neither)
    assert -1.0 <= low <= (only_b - only_a) / total + 1e-12
    assert (only_b - only_a) / total - 1e-12 <= high <= 1.0
    # Swapping the runs turns the interval around; of both for neither leaves it.
    assert newcombe(both, only_b, only_a, neither) == pytest.approx((-high, -low), abs=1e-9)
    assert newcombe(neither, only_a, only_b, both) == pytest.approx((low, high), abs=1e-9)


def test_covers_the_truth_about_95_times_of_100():
    rng, share = np.random.default_rng(0), (0.5, 0.1, 0.2, 0.2)
    drawn = rng.multinomial(60, share, size=2000)
    inside = [low <= 0.1 <= high for low, high in (newcombe(*map(int, row)) for row in drawn)]
    assert 0.93 < np.mean(inside) < 0.98


def test_lengths_count_problems_that_are_right_in_both():
    # Of five problems the first, second and last: 10 → 4, 20 → 18, 30 → 29; −6, −2, −1.
    found = lengths([10, 20, None, 99, 30], [4, 18, 5, None, 29])
    assert found[:3] == (3, 20, 17)
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)  # t(2) · s/√n: s² = (9 + 1 + 4)/2
    assert found.difference[:3] == pytest.approx((-3, -3 - half, -3 + half), rel=1e-5)
    assert found.as_dict()["difference"]["mean"] == -3
    assert lengths([10, None], [None, 10]) is None and lengths([], []) is None


def test_an_interval_of_lengths_is_not_wider_than_the_longest():
    found = lengths([10, 40], [40, 10])
    assert found.difference[:3] == (0, -40, 40)
    same = lengths([7, 8], [7, 8]).difference
    # Wilson's lower end of 2 of 2 is .3424: 8·(1 − .3424).
    assert same.mean == 0 and same.p_value == 1
    assert (same.low, same.high) == pytest.approx((-5.261, 5.261), abs=1e-3)
