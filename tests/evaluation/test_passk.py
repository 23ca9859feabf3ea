"""pass@k and maj@k: values by hand, and the estimator beside all subsets."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.evaluation import intervals
from distill_jax.evaluation.passk import extracted, maj_at_k, majority, pass_at_k


def test_one_problem_by_hand():
    # 1 − C(6, 4)/C(8, 4) = 1 − 15/70
    got = pass_at_k(np.array([8]), np.array([2]), 4)
    assert got.mean == pytest.approx(0.78571, abs=1e-5)
    assert 0.0 <= got.low < got.mean < got.high <= 1.0


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(
    st.just(n), st.integers(0, n), st.integers(1, n))))  # fmt: skip
def test_beside_all_subsets(case):
    n, c, k = case
    rights = [True] * c + [False] * (n - c)
    expected = np.mean([any(subset) for subset in itertools.combinations(rights, k)])
    assert pass_at_k(np.array([n]), np.array([c]), k).mean == pytest.approx(expected)


def test_mean_and_interval_over_problems_of_different_samples():
    n, c = np.array([8, 4, 2]), np.array([2, 0, 2])
    # k = 2: 1 − C(6,2)/C(8,2) = 1 − 15/28, 0, 1
    expected = intervals.mean_interval(np.array([13 / 28, 0.0, 1.0]))
    assert pass_at_k(n, c, 2) == pytest.approx(expected)
    assert pass_at_k(n, c, 1).mean == pytest.approx((2 / 8 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("n", "c", "k", "said"),
    [
        ([8, 4], [1, 1], 5, "k=5; wanted: 1 to 4"),
        ([8], [1], 0, "k=0"),
        ([8], [9], 1, "problem 0: 9 right of 8"),
        ([], [], 1, "at least one problem"),
        ([8, 8], [1], 1, "at least one problem"),
    ],
)
def test_impossible_arguments(n, c, k, said):
    with pytest.raises(ConfigError, match=said):
        pass_at_k(np.array(n, int), np.array(c, int), k)


def test_majority_counts_equivalent_answers_together():
    assert majority(["3", "0.5", "1/2", "3", r"\frac{1}{2}"]) == 1
    assert majority(["3", "0.5", None, "1/2", "3"]) == 0  # 2 to 2: seen first
    assert majority([None, None, "7"]) == 2
    assert majority([None, None]) is None
    assert majority([]) is None


def test_answers_written_alike_are_checked_once():
    asked = []

    def same(one, other):
        asked.append((one, other))
        return False

    assert majority(["a", "b", "a", "b", "b"], same) == 1
    assert asked == [("a", "b")]


def test_maj_at_k_over_the_first_k():
    found = [["5", "7", "7", "7"], ["1", None, "2", "2"], [None, None, "4", "4"]]
    right = [[True, False, False, False], [False, False, True, True], [False, False, True, True]]
    # k = 1: 5 right, 1 wrong, none. k = 2: 5 by the tie. k = 4: 7 wrong, 2 right, 4 right.
    for k, count in ((1, 1), (2, 1), (3, 1), (4, 2)):
        assert maj_at_k(found, right, k) == intervals.wilson(count, 3)
    with pytest.raises(ConfigError, match="1 to 4"):
        maj_at_k(found, right, 5)
    with pytest.raises(ConfigError, match="different numbers"):
        maj_at_k(found, right[:2], 1)
    with pytest.raises(ConfigError):
        maj_at_k([], [], 1)


def test_extracted():
    assert extracted(r"so \boxed{5}") == "5"
    assert extracted("no idea") is None
