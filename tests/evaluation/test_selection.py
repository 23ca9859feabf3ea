"""Selectors by hand, ties, order; best-of-k by hand and against all subsets."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.evaluation import selection
from distill_jax.evaluation.selection import Votes, best_of_k, select


def votes(groups, scores=None, weights=None, verdicts=None):
    n = len(groups)
    return Votes(
        np.array(groups),
        np.array(scores if scores is not None else [0.5] * n, float),
        np.array(weights or [1.0] * n),
        verdicts or ["unsure"] * n,
    )


# Answer 0 twice with .3 and .25, answer 1 once with .9, one candidate without an answer.
ONE = votes([0, 0, 1, -1], [0.3, 0.25, 0.9, 0.99])


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("first", 0),
        ("majority", 0),  # two against one; its better-scored member
        ("best", 2),  # the candidate without an answer does not count, for all its .99
        ("weighted", 2),  # .55 against .9
    ],
)
def test_by_hand(selector, chosen):
    assert select(ONE, selector) == chosen


def test_verdicts_weigh():
    # .55·.5 against .9·0
    judged = ONE._replace(verdict_N=["unsure", "unsure", "incorrect", "correct"])
    assert select(judged, "weighted_verdict") == 0
    assert select(judged, "weighted") == 2


def test_agents_weigh():
    # (.3 + .25)·2 against .9
    assert select(ONE._replace(weight_N=np.array([2.0, 2, 1, 1])), "weighted") == 0


def test_ties_go_to_the_better_score_then_to_the_earlier():
    assert select(votes([0, 1, 0, 1], [0.5, 0.6, 0.2, 0.1]), "majority") == 1
    assert select(votes([1, 0, 0, 1]), "majority") == 0
    assert select(votes([0, 1], [0.5, 0.5]), "best") == 0


@pytest.mark.parametrize("selector", selection.SELECTORS)
def test_none_has_an_answer(selector):
    assert select(votes([-1, -1]), selector) is None
    assert select(votes([]), selector) is None


def test_no_score_is_the_lowest():
    assert select(votes([0, 1], [np.nan, 0.1]), "best") == 1
    assert select(votes([0, 1], [np.nan, 0.0]), "weighted") == 0
    with pytest.raises(ValueError, match="selector 'vote'"):
        select(ONE, "vote")


def test_confidence():
    assert selection.confidence(ONE, 2, "weighted") == pytest.approx(0.9 / 1.45)
    assert selection.confidence(ONE, 0, "majority") == pytest.approx(2 / 3)
    assert selection.confidence(votes([0, 1], [0.0, 0.0]), 0, "weighted") is None


def test_groups():
    found = selection.groups(["1/2", None, "0.5", "2", "1/2", "2.0"])
    assert found.tolist() == [0, -1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([0.9, 0.7, 0.7, 0.4], [0, 1, 0, 1], [0.5, 0.25, 0.125, 0.0]),
        ([0.9, 0.8, 0.4, 0.2], [0, 1, 1, 0], [0.5, 0.5, 0.25, 0.0]),
    ],
)
def test_best_of_k_by_hand(scores, right, expected):
    found = [best_of_k(np.array(scores), np.array(right), k) for k in (1, 2, 3, 4)]
    assert found == pytest.approx(expected)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_best_of_k_is_the_mean_over_all_subsets(data):
    n = data.draw(st.integers(1, 6))
    k = data.draw(st.integers(1, n))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.1, 0.5, np.nan]), min_size=n, max_size=n))
    )
    right = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    filled = np.where(np.isnan(scores), -1.0, scores)
    means = []
    for rows in itertools.combinations(range(n), k):
        best = [i for i in rows if filled[i] == max(filled[list(rows)])]
        means.append(right[best].mean())  # of equal scores any is taken
    assert best_of_k(scores, right, k) == pytest.approx(np.mean(means))


def test_best_of_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k=3 of 2"):
        best_of_k(np.ones(2), np.ones(2), 3)


@pytest.mark.parametrize("selector", selection.SELECTORS)
def test_over_subsets_of_all_and_of_one(selector):
    right = np.array([1, 1, 0, 0])
    chosen = select(ONE, selector)
    assert selection.expected(ONE, right, 4, selector) == (right[chosen], 1)
    assert selection.expected(ONE, right, 1, selector) == (0.5, 4)


def test_many_subsets_are_drawn():
    many = votes([0, 1] * 10, np.linspace(0, 1, 20))
    right = np.array([1, 0] * 10)
    found = selection.expected(many, right, 10, "majority", draws=32)
    assert found[1] == 32 and 0 < found[0] < 1
    assert found == selection.expected(many, right, 10, "majority", draws=32)
