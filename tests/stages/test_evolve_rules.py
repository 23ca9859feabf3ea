"""The rules of self-evolution by hand: what is accepted, learnt on, kept; when it stops."""

import math

import pytest

from distill_jax.stages.evolve_rules import (
    HeldOut,
    Solution,
    accepted,
    best_round,
    filter_figures,
    first_low,
    level_capped,
    pooled,
    why_stop,
)

NAN = math.nan
# Place, problem, key, right, score.
TABLE = [
    Solution(0, "a", True, 0.7),
    Solution(0, "b", False, 0.99),  # wrong: no score admits it
    Solution(0, "a", True, 0.9),  # better than 0, of the same key
    Solution(0, "c", True, 0.65),
    Solution(0, "d", True, 0.8),
    Solution(1, "a", True, 0.6),  # not above
    Solution(1, "b", True, NAN),
    Solution(1, "c", False, NAN, True),
    Solution(2, "a", True, 0.61),
    Solution(2, "b", True, 0.61),
    Solution(2, "c", True, 0.99, guess=True),  # hard-coded
]


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({"threshold": 0.6, "per_problem": 2}, [2, 4, 8, 9]),
        ({"threshold": 0.6, "per_problem": 1}, [2, 8]),
        ({"threshold": 0.6, "per_problem": 9}, [2, 3, 4, 8, 9]),
        ({"threshold": 0.85, "per_problem": 2}, [2]),
        # Without a reward model scores only rank; NaN comes last.
        ({"threshold": None, "per_problem": 1}, [2, 5, 8]),
        ({"threshold": None, "per_problem": 2}, [2, 4, 5, 6, 8, 9]),
        ({"threshold": 0.6, "per_problem": 2, "known": {0: {"a"}, 2: {"b", "x"}}}, [3, 4, 8]),
    ],
)
def test_what_is_accepted(how, kept):
    assert accepted(TABLE, **how) == kept


def test_without_scores_the_first_are_taken():
    same = [Solution(0, key, True) for key in "abc"]
    assert accepted(same, threshold=None, per_problem=2) == [0, 1]


def test_newer_rounds_fill_a_problem_first():
    # Problem 5: one in round 0, one in round 1, two in round 2; problem 6 in round 0 alone.
    rounds = [[5, 6, 6, 6], [5], [5, 5, 7]]
    assert pooled(rounds, 2) == [(0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    assert pooled(rounds, 3) == [(0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert pooled([], 2) == []


def test_a_level_has_a_multiple_of_an_equal_share():
    # Level 1: three problems of two solutions; level 2: one, level 3: one. N = 8, 3 levels.
    problems, levels = [1, 1, 2, 2, 3, 3, 4, 5], [1] * 6 + [2, 3]
    # Caps: ceil(1 · 8/3) = 3, ceil(1.5 · 8/3) = 4, ceil(0.3 · 8/3) = 1.
    one = level_capped(problems, levels, 1.0, (0, 1))
    assert one == [0, 2, 4, 6, 7]  # the first of each problem
    more = level_capped(problems, levels, 1.5, (0, 1))
    assert len(more) == 6 and set(one) < set(more)
    least = {tuple(level_capped(problems, levels, 0.3, (seed,))) for seed in range(20)}
    assert least == {(0, 6, 7), (2, 6, 7), (4, 6, 7)}  # which problem, the seed says
    assert level_capped(problems, levels, 0.0, (0,)) == list(range(8))
    assert level_capped(problems, [None] * 8, 1.0, (0,)) == list(range(8))
    assert level_capped([], [], 1.0, (0,)) == []


def test_the_threshold_s_figures():
    # Scored and decided: 9, of which 8 right; above 0.6: all but place 5, of which 7 right.
    assert filter_figures(TABLE, 0.6) == {
        "scored": 9, "acceptance_rate": 8 / 9, "precision": 7 / 8, "recall": 7 / 8,
        "base_rate": 8 / 9,
    }  # fmt: skip
    assert filter_figures(TABLE, 1.0)["precision"] is None
    assert set(filter_figures([], 0.5).values()) == {0, None}


@pytest.mark.parametrize(
    ("pass_1", "pass_k", "why", "best"),
    [
        ((0.5, 0.6), (0.8, 0.8), "", 1),
        ((0.5, 0.5), (0.8, 0.8), "", 1),  # once
        ((0.5, 0.5, 0.4), (0.8, 0.8, 0.8), "pass@1 did not rise", 1),  # twice
        ((0.5, 0.6, 0.5), (0.8, 0.8, 0.8), "", 1),
        ((0.5, 0.6, 0.5, 0.6), (0.8, 0.8, 0.8, 0.8), "pass@1 did not rise", 1),
        ((0.5, 0.6, 0.5, 0.7), (0.8, 0.8, 0.8, 0.8), "", 3),
        ((0.5, 0.6), (0.8, 0.79), "", 1),  # within the margin
        ((0.5, 0.6), (0.8, 0.7), "pass@k fell", 1),
        ((0.5, 0.6, 0.7), (0.8, 0.9, 0.85), "pass@k fell", 2),  # of the round before
    ],
)
def test_when_it_stops_and_whose_student_is_kept(pass_1, pass_k, why, best):
    rounds = [HeldOut(*both) for both in zip(pass_1, pass_k, strict=True)]
    assert why_stop(rounds, patience=2, margin=0.02) == why
    assert best_round(rounds) == best
    assert why_stop(rounds[:1], patience=2, margin=0.02) == ""


def test_the_first_low_step():
    assert first_low([0.9, 0.6, 0.2], 0.6) == 1  # above, not at
    assert first_low([0.9, 0.7], 0.6) is None and first_low([], 0.6) is None
