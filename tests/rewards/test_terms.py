import math

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.data.problem import Problem
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.terms import TERMS, Completions, HostTerms, columns
from distill_jax.tasks import Judged

TEXTS = [
    "2 + 2 = 4, so #### 4",  # states its answer, true equation, right
    "2 + 2 = 5; 3 * 3 = 9. The answer is 5",  # half of what is written is true
    "It is four, I think",  # states nothing
    "#### 4",  # no equation, and cut off
]
STATED = ["4", "5", None, "4"]
ENDED = np.array([True, True, True, False])


def problem(number, **extra):
    return Problem(f"p{number}", f"question {number}", "", "4", level=number, extra=extra)


def terms(*, undecided=(0, 0, 0, 0), **settings):
    right_B, undecided_B = np.array([True, False, False, True]), np.array(undecided, bool)
    judged = Judged(right_B & ~undecided_B, undecided_B, [{}] * 4, STATED)
    problems = [problem(i) for i in range(4)]
    return HostTerms(RewardSettings(**settings))(Completions(problems, TEXTS, judged, ENDED))


def test_every_term_has_a_weight_and_every_weight_a_term():
    assert list(RewardSettings().weights) == list(TERMS)
    # One at a time: with term length the others may not outweigh correctness.
    off = dict.fromkeys((f"{name}_weight" for name in TERMS), 0.0) | {"correctness_weight": 1.0}
    for number, name in enumerate(TERMS):
        custom = "a:b" if name == "custom" else ""
        found = RewardSettings(**{**off, f"{name}_weight": 2.0 + number}, custom=custom).weights
        assert {k: v for k, v in found.items() if v} == {"correctness": 1.0, name: 2.0 + number}


def test_which_terms_adapt():
    assert [name for name, term in TERMS.items() if not term.adapts] == ["correctness", "length"]


def test_terms_of_the_host_have_one_value_a_sequence():
    every = {f"{name}_weight": 1.0 for name in TERMS if name != "length"}
    assert set(terms(**every)) == {"correctness", "reasoning", "format"}  # no function is given
    for value_B in terms(**every).values():
        assert value_B.shape == (4,) and value_B.dtype == np.float32


class Own:
    """In place of the process of a user's function."""

    def __init__(self, path, deadline_s, late_in_row, say):
        self.made, self.late, self.asked, self.closed = (path, deadline_s, late_in_row), 3, [], 0

    def __call__(self, *arguments):
        self.asked.append(arguments)
        return np.array([0.5, np.nan, 0.0, 1.0], np.float32)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(("several_hosts", "patience"), [(False, 3), (True, 1)])
def test_a_user_s_term(monkeypatch, several_hosts, patience):
    monkeypatch.setattr("distill_jax.rewards.terms.CustomReward", Own)
    settings = RewardSettings(custom="mine:reward", custom_weight=2.0, custom_deadline_s=7.0)
    host = HostTerms(settings, several_hosts=several_hosts)
    problems = [problem(i) for i in range(4)]
    judged = Judged(np.zeros(4, bool), np.zeros(4, bool), [{}] * 4, STATED)
    found = host(Completions(problems, TEXTS, judged, ENDED))
    np.testing.assert_array_equal(found["custom"], np.array([0.5, np.nan, 0, 1], np.float32))
    own = host.custom
    assert own.made == ("mine:reward", 7.0, patience)
    assert own.asked == [([p.question for p in problems], TEXTS, ["4"] * 4, columns(problems))]
    assert host.metrics() == {"rewards/custom/late": 3.0} and own.closed == 0
    host.close()
    assert own.closed == 1


def test_without_a_function_there_is_nothing_to_count_or_close():
    host = HostTerms(RewardSettings(custom_weight=2.0, format_weight=1.0))
    assert host.metrics() == {} and set(host.scores) == {"correctness", "format"}
    host.close()


def test_a_custom_weight_counts_only_with_a_function():
    assert RewardSettings(custom_weight=2.0).weights["custom"] == 0.0
    assert RewardSettings(custom="a:b", custom_weight=2.0).weights["custom"] == 2.0


def test_correctness_keeps_fractions_and_marks_what_it_cannot_tell():
    # A fractional reward is not rounded to an integer.
    found = terms(right=0.75, wrong=-0.25)["correctness"]
    assert found.tolist() == [0.75, -0.25, -0.25, 0.75] and found.dtype == np.float32
    found = terms(right=0.75, wrong=-0.25, undecided=(1, 1, 0, 0))["correctness"]
    np.testing.assert_array_equal(found, np.array([np.nan, np.nan, -0.25, 0.75], np.float32))


def test_correctness_is_computed_without_a_weight():
    assert set(terms(correctness_weight=0.0)) == {"correctness"}


def test_terms_of_nothing():
    nothing = Completions([], [], Judged(np.zeros(0, bool), np.zeros(0, bool), [], []), ENDED[:0])
    every = RewardSettings(reasoning_weight=1.0, format_weight=1.0)
    found = HostTerms(every)(nothing)
    assert set(found) == {"correctness", "reasoning", "format"}
    assert all(len(value_B) == 0 for value_B in found.values())


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
