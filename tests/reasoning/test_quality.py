r"""Quality of reasoning beside the gold solution: values by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.reasoning.quality import (
    Reasoning,
    arithmetic_validity,
    logical_consistency,
    reasoning,
    step_coverage,
    step_values,
    written_values,
)

GOLD = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "She sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72"
)
MATH = r"We have $2x + 4 = 14$, so $x = 5$ and $y = \frac{10}{4} = \frac{5}{2}$. \boxed{5}"


def test_values_of_the_steps():
    assert step_values(GOLD) == [24, 72]
    assert step_values(MATH) == [14, 5, Fraction(5, 2)]
    assert step_values("y = 2x, f(3) = 1,200 apples, z = -4, t = 3 + 4 = 7") == [1200, -4, 7]
    assert step_values("<<20*5%=1>> <<1/3=.33>> <<n=x>> <<1+1>>") == [1, Fraction(33, 100)]
    assert step_values("It is 7.\n#### 7") == []


@pytest.mark.parametrize(
    ("completion", "coverage"),
    [
        ("24", 0.5),  # the check of the brief: gold {24, 72}, 24 alone is written
        ("48/2 = 24 clips, and 24 + 48 = $72.00", 1.0),
        ("<<48/2=24>>24\n<<48+24=72>>72\n#### 72", 1.0),
        ("<<48/2=24>>\n<<48+24=72>>\n#### 72", 1.0),
        (r"\frac{48}{2} = 24", 0.5),
        ("half of 48 is 24.", 0.5),
        ("#### 72", 0.0),  # the answer alone is no step
        ("72n and 24x and x_24", 0.0),
        ("24 + 72 = 96", 0.0),  # operands are not what a step gives
        ("24. half\n72) twice\n- 5", 0.0),  # items of a list
        ("", 0.0),
    ],
)
def test_coverage(completion, coverage):
    assert step_coverage(GOLD, completion) == coverage


def test_coverage_counts_a_value_as_often_as_it_is_reached():
    gold = "<<2+2=4>> <<1+3=4>> <<4+4=8>>"
    assert step_coverage(gold, "4, then 8") == pytest.approx(2 / 3)
    assert step_coverage(gold, "4, 4, then 8, 8, 9") == 1.0
    # A mark and the number that repeats it are written once.
    assert written_values("2+2 = <<2+2=4>>4") == [4]


def test_nothing_to_judge_is_none_and_never_1():
    assert reasoning("#### 7", "no idea") == Reasoning(None, None, None)
    assert step_coverage("It is 7.\n#### 7", "7") is None
    assert logical_consistency("x + 1 = 7x, the answer is 6") is None
    assert arithmetic_validity("2 + 2 = 4") is None


def test_consistency_and_validity():
    assert logical_consistency("2+2=5; 3*3=9") == 0.5
    text = "1+1 = <<1+1=2>>2, 2+2 = <<2+2=5>>5, 3+3 = 6"
    assert arithmetic_validity(text) == 0.5
    # Seen in the text: 2, 5 (wrong), 6; in the marks: 2, 5 (wrong).
    assert logical_consistency(text) == pytest.approx(3 / 5)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.randoms())
def test_any_order_of_the_gold_steps_covers_them_all(values, random):
    gold = " ".join(f"<<{v}+0={v}>>" for v in values)
    shuffled = random.sample(values, len(values))
    assert step_coverage(gold, "; ".join(f"so {v} apples" for v in shuffled)) == 1.0
    fewer = "; ".join(f"{v} - 0 = {v}" for v in shuffled[1:])
    assert step_coverage(gold, fewer) == pytest.approx(1 - 1 / len(values))
