import numpy as np
import pytest

from distill_jax.evaluation import intervals
from distill_jax.evaluation.reasoning import summary
from distill_jax.reasoning.quality import Reasoning


def test_summary_over_those_that_apply():
    rows = [Reasoning(1.0, None, None), Reasoning(0.5, 1.0, None), Reasoning(None, 0.0, None)]
    got = summary(rows)
    expected = intervals.mean_interval(np.array([1.0, 0.5]))
    assert got["step_coverage"] == {**expected._asdict(), "count": 2, "problems": 2}
    assert got["step_coverage"]["mean"] == 0.75
    nothing = {"mean": None, "low": None, "high": None, "count": 0, "problems": 0}
    assert got["arithmetic_validity"] == nothing


def test_samples_of_one_problem_count_once():
    rows = [Reasoning(x, None, None) for x in (0.0, 1.0, 1.0, 1.0)]
    got = summary(rows, ["a", "a", "a", "b"])["step_coverage"]
    expected = intervals.mean_interval(np.array([2 / 3, 1.0]))
    assert got == {**expected._asdict(), "count": 4, "problems": 2}
    with pytest.raises(ValueError, match="4 rows of 1"):
        summary(rows, ["a"])
