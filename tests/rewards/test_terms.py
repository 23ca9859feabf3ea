import math

import numpy as np
import pytest
from distill_jax.rewards.correctness import correctness

from distill_jax.core.errors import ConfigError
from distill_jax.data.problem import Problem
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.terms import HostTerms, columns

TEXTS = [
    "2 + 2 = 4, so #### 4",  # states its answer, true equation, right
    "2 + 2 = 5; 3 * 3 = 9. The answer is 5",  # half of what is written is true
    "It is four, I think",  # states nothing
    "#### 4",  # no equation, and cut off
]
ENDED = np.array([True, True, True, False])


def problem(number, **extra):
    return Problem(f"p{number}", f"question {number}", "", "4", level=number, extra=extra)


def terms(**weights):
    judged = correctness(["4"] * 4, TEXTS, right=1.0, wrong=0.0)
    settings = RewardSettings(**weights)
    return HostTerms(settings)([problem(i) for i in range(4)], TEXTS, judged, ENDED)


def test_correctness_alone_by_default():
    assert {name: value.tolist() for name, value in terms().items()} == {
        "correctness": [1.0, 0.0, 0.0, 1.0]
    }


def test_reasoning_is_the_share_of_true_equations_and_none_written_is_no_merit():
    found = terms(reasoning_weight=0.1)["reasoning"]
    assert found[:2].tolist() == [1.0, 0.5]
    assert math.isnan(found[2]) and math.isnan(found[3])


def test_format_needs_a_stated_answer_and_an_end():
    assert terms(format_weight=0.1)["format"].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_columns_of_problems():
    found = columns([problem(1, source="a"), problem(2, other=3)])
    assert found["level"] == [1, 2] and found["id"] == ["p1", "p2"]
    assert found["source"] == ["a", None] and found["other"] == [None, 3]


def test_some_weight_is_needed():
    with pytest.raises(ConfigError, match="all weights"):
        RewardSettings(correctness_weight=0.0, intrinsic_weight=0.0)
    RewardSettings(correctness_weight=0.0, intrinsic_weight=0.0, format_weight=1.0)
