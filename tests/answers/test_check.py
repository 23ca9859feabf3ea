import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.answers import check_batch, equivalent
from distill_jax.answers.numbers import Number, parse_number

HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("24", 24, ""),
        ("-3", -3, ""),
        ("\u22123", -3, ""),  # the minus of typographers
        ("1,234,567", 1_234_567, ""),
        ("1 000 000", 10**6, ""),
        (r"1\,000", 1000, ""),
        ("3.50", Fraction(7, 2), ""),
        (".5", HALF, ""),
        ("$18", 18, ""),
        ("-$18.", -18, ""),
        (r"\$18", 18, ""),
        ("$\\frac{1}{2}$", HALF, ""),
        (r"\dfrac12", HALF, ""),
        (r"-\frac{1}{2}", -HALF, ""),
        (r"2\frac{1}{2}", Fraction(5, 2), ""),
        ("1 1/2", Fraction(3, 2), ""),
        ("-1 1/2", Fraction(-3, 2), ""),
        ("½", HALF, ""),
        ("1½", Fraction(3, 2), ""),
        ("4/8", HALF, ""),
        ("1e6", 10**6, ""),
        (r"3 \times 10^{5}", 300_000, ""),
        ("1.2 million", 1_200_000, ""),
        ("5%", 5, "%"),
        (r"5\%", 5, "%"),
        ("5 percent", 5, "%"),
        ("72 dollars", 72, "dollars"),
        ("10cm", 10, "cm"),
        (r"10\text{ cm}", 10, "cm"),
        ("2 million people", 2 * 10**6, "people"),
    ],
)
def test_reads_numbers(text, value, unit):
    assert parse_number(text) == Number(Fraction(value), unit)


@pytest.mark.parametrize(
    "text",
    ["", "x", "3x", "3 x", "2i", "3 pi", "5 or 7", "5 and more", "1,00", "1/0", "1/2/3", "52_8"]
    + ["1/2004!", "9**9**9**9", "1e999999", "10^{10^{10}}", "__import__('os')", "(1,2)", "24 25"],
)
def test_reads_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("gold", "predicted", "wanted"),
    [
        ("24", "24", "right"),
        ("24", "24.0", "right"),
        ("24", "25", "wrong"),
        ("1234", "$1,234.00", "right"),
        ("1/2", r"\frac{1}{2}", "right"),
        ("0.5", "1/2", "right"),
        ("72", "72 dollars", "right"),
        ("5", "500%", "wrong"),
        ("10 cm", "10 m", "wrong"),
        ("10 cm", "10", "right"),
        ("1e-20", "1e-21", "wrong"),
        ("12", "1 2", "wrong"),
        ("24", "2<<", "wrong"),
        ("24", "24 25", "wrong"),
        ("24", "", "wrong"),
        ("3", "3x", "undecided"),
        ("5", "2+3", "undecided"),
        ("5", "5=7", "undecided"),
        ("5", "5 or 7", "undecided"),
        ("52_8", "52_9", "undecided"),
        ("1/2004!", "1/2006!", "undecided"),
        ("(1,2)", r"\{1,2\}", "undecided"),
        (r"\sqrt{2}", r"\sqrt{2}", "right"),
        ("x + 1", "x+1", "right"),
        (r"\left(1, 2\right)", "(1,2)", "right"),
        ("x+1", "1+x", "undecided"),
    ],
)
def test_verdicts_either_way_round(gold, predicted, wanted):
    assert equivalent(gold, predicted).verdict == wanted
    assert equivalent(predicted, gold).verdict == wanted


@pytest.mark.parametrize(
    "bomb", ["9" * 10**6, "9**9**9**9", "{" * 2000, "1e400000000", r"\frac{" * 300, "1 " * 400]
)
def test_bombs_are_never_evaluated(bomb):
    start = time.perf_counter()
    assert not equivalent("5", bomb).right
    assert time.perf_counter() - start < 1.0


def test_a_verdict_says_why_and_how_long():
    verdict = equivalent("1", "2")
    assert verdict.reason == "different numbers"
    assert verdict.milliseconds > 0


def test_a_batch_reads_answers_out_of_texts():
    golds = ["24", "7", "<<1+2=3>>\n#### 3", r"so \boxed{\frac12}"]
    texts = ["<<20+4=24>>\n#### 24", "I give up: 7", "#### 4", "The answer is 0.5."]
    assert [v.verdict for v in check_batch(golds, texts)] == ["right", "wrong", "wrong", "right"]
    assert check_batch(["7"], ["I give up: 7"])[0].reason == "no final answer"


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_compare_exactly(first, second):
    wanted = "right" if first == second else "wrong"
    assert equivalent(str(first), str(second)).verdict == wanted


@given(st.integers(-(10**9), 10**9))
def test_spellings_of_one_integer_are_equal(number):
    for text in (f"{number:,}", f"{number}.00", f"{number} apples", f"{number}/1"):
        assert equivalent(str(number), text).right
        assert not equivalent(str(number + 1), text).right


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_gets_the_same_verdict_either_way_round(first, second):
    assert equivalent(first, second).verdict == equivalent(second, first).verdict
