"""maj@k and summaries of reasoning, by hand."""

import numpy as np

from distill_jax import answers
from distill_jax.data.problem import Problem
from distill_jax.evaluation import intervals
from distill_jax.evaluation.measures import maj_at_k, majority, measures, reasoning_summary
from distill_jax.reasoning.quality import Reasoning


def test_pass_at_k_and_maj_at_k_of_samples_by_hand():
    problems = [Problem("a", "q", "s", "4"), Problem("b", "q", "s", "5")]
    stated = [str(x) for x in (4, 4, 7, 7, 5, 5, 5, 6)]
    texts = [f"#### {x}" for x in stated]
    right_PG = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    found = measures(problems, texts, [[1]] * 8, np.ones(8, bool), right_PG, stated)
    # k = 2: 1 − C(2, 2)/C(4, 2) = 5/6 and 1
    assert found["pass@k"]["2"] == intervals.mean_interval(np.array([5 / 6, 1.0]))._asdict()
    assert list(found["pass@k"]) == list(found["maj@k"]) == ["1", "2", "4"]
    assert found["maj@k"]["4"]["mean"] == 1.0  # two of each answer: seen first wins


def test_majority_counts_equivalent_answers_together():
    assert majority(["3", "0.5", "1/2", "3", r"\frac{1}{2}"]) == 1
    assert majority(["3", "0.5", None, "1/2", "3"]) == 0  # 2 to 2: seen first
    assert majority([None, None, "7"]) == 2
    assert majority([None, None]) is None
    assert majority([]) is None


def test_answers_written_alike_are_checked_once(monkeypatch):
    asked = []

    def equivalent(one, other):
        asked.append((one, other))
        return answers.Verdict("wrong", "", 0.0)

    monkeypatch.setattr(answers, "equivalent", equivalent)
    assert majority(["a", "b", "a", "b", "b"]) == 1
    assert asked == [("a", "b")]


def test_maj_at_k_over_the_first_k():
    found = [["5", "7", "7", "7"], ["1", None, "2", "2"], [None, None, "4", "4"]]
    right = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    # k = 1: 5 right, 1 wrong, none. k = 2: 5 by the tie. k = 4: 7 wrong, 2 right, 4 right.
    for k, count in ((1, 1), (2, 1), (3, 1), (4, 2)):
        assert maj_at_k(found, right, k) == intervals.wilson(count, 3)


def test_summary_over_those_that_apply():
    rows = [Reasoning(1.0, None, None), Reasoning(0.5, 1.0, None), Reasoning(None, 0.0, None)]
    got = reasoning_summary(rows, ["a", "b", "c"])
    expected = intervals.mean_interval(np.array([1.0, 0.5]))
    assert got["step_coverage"] == {**expected._asdict(), "count": 2, "problems": 2}
    assert got["step_coverage"]["mean"] == 0.75
    nothing = {"mean": None, "low": None, "high": None, "count": 0, "problems": 0}
    assert got["arithmetic_validity"] == nothing


def test_samples_of_one_problem_count_once():
    rows = [Reasoning(x, None, None) for x in (0.0, 1.0, 1.0, 1.0)]
    got = reasoning_summary(rows, ["a", "a", "a", "b"])["step_coverage"]
    expected = intervals.mean_interval(np.array([2 / 3, 1.0]))
    assert got == {**expected._asdict(), "count": 4, "problems": 2}
