"""Arms of problems: names, order, problems without a level, MATH's own rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.curriculum import arms
from distill_jax.data.problem import overlap
from distill_jax.data.sources import DataSettings, load
from tests.curriculum.problems import levels, problem

MATH = Path(__file__).resolve().parents[3] / "shared" / "data" / "math" / "math_sample_500.jsonl"


def test_levels():
    found = arms.build([problem("a", 3, length=9), problem("b", 1), problem("c", 3, length=2)])
    assert found.names == ("level_1", "level_3")
    assert found.arm_N.tolist() == [1, 0, 1] and found.level_A.tolist() == [1, 3]
    # The shorter solution first.
    assert [m.tolist() for m in found.members] == [[1], [2, 0]]
    assert found.size_A.tolist() == [1, 2] and found.unlevelled == 0


def test_levels_and_subjects():
    rows = [
        problem("a", 2, "Counting & Probability"),
        problem("b", 1, "Geometry"),
        problem("c", 2, None),
        problem("d", 2, "Geometry"),
        problem("e", None, "Geometry"),
    ]
    found = arms.build(rows, kind="level_subject")
    assert found.names == (
        "level_1/geometry",
        "level_2/counting_probability",
        "level_2/geometry",
        "level_2/no_subject",
        "no_level",
    )
    assert found.arm_N.tolist() == [1, 0, 3, 2, 4]


def test_problems_without_a_level():
    rows = levels(2, 1, without=3)
    own = arms.build(rows)
    assert own.names[-1] == "no_level" and own.level_A[-1] == 0 and own.size_A[-1] == 3
    assert own.unlevelled == 3 and own.kept.tolist() == list(range(6))
    dropped = arms.build(rows, unlevelled="drop")
    assert dropped.names == ("level_1", "level_2") and dropped.unlevelled == 3
    assert dropped.kept.tolist() == [0, 1, 2] and dropped.arm_N[3:].tolist() == [-1] * 3
    with pytest.raises(DataError, match=r"3 of 6 problems have no level, first none\.0.*own_arm"):
        arms.build(rows, unlevelled="error")
    with pytest.raises(DataError, match="none of 2 problems has a level"):
        arms.build(levels(without=2), unlevelled="drop")


def test_rows_in_the_form_of_math(tmp_path):
    file = tmp_path / "math.jsonl"
    kinds = ["Level 1", "Level 5", "Level ?", None]
    rows = [
        {
            "problem": f"What is {n} + 1?",
            "level": kinds[n % 4],
            "type": ["Algebra", "Number Theory"][n % 2],
            "solution": f"\\boxed{{{n + 1}}}",
        }
        for n in range(80)
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    splits = {
        s: load(DataSettings(source=str(file)), s, 0) for s in ("train", "validation", "test")
    }
    assert sum(map(len, splits.values())) == 80
    assert not overlap(splits["train"], splits["validation"] + splits["test"])
    found = arms.build(splits["train"], kind="level_subject")
    assert found.names == ("level_1/algebra", "level_5/number_theory", "no_level")
    assert found.unlevelled == sum(p.level is None for p in splits["train"]) > 0


@pytest.mark.skipif(not MATH.exists(), reason="no ../shared/data/math")
def test_a_sample_of_math():
    rows = load(DataSettings(source=str(MATH)), "train", 0)
    test = load(DataSettings(source=str(MATH)), "test", 0)
    assert not overlap(rows, test) and len(rows) > 400
    found = arms.build(rows)
    assert found.names == tuple(f"level_{n}" for n in range(1, 6)) and found.unlevelled == 0
    both = arms.build(rows, kind="level_subject")
    assert len(both.names) == 20 and "level_5/counting_probability" in both.names
    assert np.sum(both.size_A) == len(rows)
