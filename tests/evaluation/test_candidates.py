"""Candidates: selection does not depend on their order; scores."""

import dataclasses
import itertools
import json
import math
import random

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.evaluation import candidates as many
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.selection import SELECTORS

NAN = math.nan


def one(agent=0, attempt=0, answer="1", score=NAN, **more):
    return Candidate(agent, attempt, f"#### {answer}", (1, 2), answer=answer, score=score, **more)


# Votes: 24 has .3 + .25, 20 has .9, and a candidate without an answer .99.
FOUR = [
    one(0, 0, "24", 0.3),
    one(0, 1, "24.0", 0.25, verdict="correct"),
    one(1, 0, "20", 0.9, verdict="incorrect"),
    one(1, 1, None, 0.99),
]


@pytest.mark.parametrize("selector", SELECTORS)
def test_the_order_of_candidates_does_not_matter(selector):
    # Every tie: of answers, scores, agents' weights.
    tied = [
        one(a, g, str(x), 0.5)
        for (a, g), x in zip(itertools.product((0, 1), (0, 1)), "1221", strict=True)
    ]
    for found in (FOUR, tied):
        chosen = {
            many.choose(some, [1.0, 1.0], selector).slot for some in itertools.permutations(found)
        }
        assert len(chosen) == 1


@pytest.mark.parametrize(
    ("selector", "slot"),
    [
        ("first", (0, 0)),
        ("majority", (0, 0)),
        ("best", (1, 0)),
        ("weighted", (1, 0)),
        # (.3 + .25)·1, for the verdict is on the answer of both, against .9·0
        ("weighted_verdict", (0, 0)),
    ],
)
def test_selectors_on_the_same_candidates(selector, slot):
    assert many.choose(FOUR, [1.0, 1.0], selector).slot == slot
    assert many.votes(FOUR, [1.0, 1.0]).verdict_N == ["correct", "correct", "incorrect", "unsure"]


def test_agents_weigh():
    # (.3 + .25)·2 against .9·1
    assert many.choose(FOUR, [2.0, 1.0], "weighted").slot == (0, 0)
    assert many.choose(FOUR, [0.1, 1.0], "majority").slot == (1, 0)


def test_no_candidate_has_an_answer():
    for selector in SELECTORS:
        assert many.choose([one(answer=None, score=0.9)], [1.0], selector) is None


def test_strongest_groups_and_their_best():
    assert [c.slot for c in many.strongest(FOUR, [1.0, 1.0], 5)] == [(1, 0), (0, 0)]
    assert [c.slot for c in many.strongest(FOUR, [1.0, 1.0], 1)] == [(1, 0)]
    bare = [dataclasses.replace(c, score=NAN) for c in FOUR]
    random.Random(0).shuffle(bare)
    assert [c.slot for c in many.strongest(bare, [1.0, 1.0], 5)] == [(0, 0), (1, 0)]


class Fixed:
    """Gives the scores that it was made with."""

    def __init__(self, *steps):
        self.steps, self.calls = steps, []

    def score(self, prompts, completions):
        self.calls.append((list(prompts), list(completions)))
        return [np.array(x, np.float32) for x in self.steps]

    def aggregate(self, steps):
        return np.array([x.min() if len(x) else NAN for x in steps])


def test_scores_come_from_one_call():
    scorer = Fixed([0.5, 0.25], [])
    found = many.scored(scorer, [[7], [8]], [one(), one(attempt=1, answer=None)])
    assert scorer.calls == [([[7], [8]], [(1, 2), (1, 2)])]
    assert found[0].steps == (0.5, 0.25) and found[0].score == 0.25
    assert found[1].steps == () and math.isnan(found[1].score)
    row = found[1].row("a", kept=True)
    assert row["score"] is None and row["tokens"] == 2 and json.dumps(row, allow_nan=False)
    assert many.scored(scorer, [], []) == [] and len(scorer.calls) == 1


def test_last_steps_without_room_are_counted():
    scorer = Fixed([0.5, 0.25, NAN], [NAN])
    scorer.aggregate = lambda steps: np.array([0.25, NAN])
    found = many.scored(scorer, [[7], [8]], [one(), one(attempt=1)])
    assert [(c.steps, c.unscored) for c in found] == [((0.5, 0.25), 1), ((), 1)]
    assert math.isnan(found[1].score)
    many.refuse_unscored(found)
    many.refuse_unscored([one()])
    with pytest.raises(DataError, match="scores no step of 1 candidates: they are NaN"):
        many.refuse_unscored(found[1:])


@pytest.mark.parametrize("steps", [[NAN, 0.5], [1.5], [-0.1]])
def test_a_score_that_is_none_is_refused(steps):
    with pytest.raises(DataError, match=r"the reward model gives .* wanted: scores in \[0, 1\]"):
        many.scored(Fixed(steps), [[7]], [one()])


def test_an_aggregate_that_is_none_is_refused():
    scorer = Fixed([0.5])
    scorer.aggregate = lambda steps: np.array([NAN])
    with pytest.raises(DataError, match="the reward model gives nan to a candidate of 1 steps"):
        many.scored(scorer, [[7]], [one()])
