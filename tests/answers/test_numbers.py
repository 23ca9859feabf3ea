from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.answers.numbers import parse_number
from distill_jax.answers.spelling import tidy
from distill_jax.answers.units import read_unit

HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("24", 24, None),
        ("\u22123", -3, None),  # the minus of typographers
        ("1,234,567", 1_234_567, None),
        ("1 000 000", 10**6, None),
        (r"1\,000", 1000, None),
        ("3.50", Fraction(7, 2), None),
        (".5", HALF, None),
        ("$18", 18, "dollar"),
        ("-$18.", -18, "dollar"),
        (r"\$18", 18, "dollar"),
        ("$18$", 18, None),  # LaTeX's
        ("$\\frac{1}{2}$", HALF, None),
        (r"\dfrac12", HALF, None),
        (r"-\frac{1}{2}", -HALF, None),
        (r"2\frac{1}{2}", Fraction(5, 2), None),
        ("-1 1/2", Fraction(-3, 2), None),
        ("1½", Fraction(3, 2), None),
        ("1e6", 10**6, None),
        (r"3 \times 10^{5}", 300_000, None),
        ("Fraction(1, 2)", HALF, None),
        ("5%", 5, "%"),
        (r"5\%", 5, "%"),
        ("5 percent", 5, "%"),
        ("72 dollars", 72, "dollar"),
        ("10cm", 10, "cm"),
        (r"10\text{ cm}", 10, "cm"),
        (r"10\text{ cm}^2", 10, "cm^2"),
        ("2 million people", 2 * 10**6, None),
        ("€25", 25, "euro"),
        ("5 miles per hour", 5, "mph"),
        (r"\$5 per hour", 5, "dollar/hour"),
        ("5 feet 6 inches", Fraction(11, 2), "feet"),
        ("0.12\\overline{3}", Fraction(37, 300), None),
    ],
)
def test_reads_numbers(text, value, unit):
    number = parse_number(text)
    assert number is not None
    assert number.value == Fraction(value)
    assert number.unit == (read_unit(unit) if unit else None)


@pytest.mark.parametrize(
    "text",
    ["", "x", "3x", "3 x", "3m", "2i", "3 pi", "5 or 7", "5 and more", "1/0", "1/2/3", "52_8"]
    + ["1/2004!", "9**9**9**9", "1e999999", "10^{10^{10}}", "__import__('os')", "(1,2)", "24 25"]
    + ["5 but 7", "9" * 1000],
)
def test_reads_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("km/h", "kilometers per hour"),
        ("cm^2", "square centimeters"),
        ("cubic feet", "ft^3"),
        ("%", "percent"),
        (r"^\circ", "degrees"),
        ("liters", "dm^3"),
        ("g/cm^3", "grams per cubic centimeter"),
    ],
)
def test_units_with_several_names(one, other):
    assert read_unit(one) is not None
    assert read_unit(one) == read_unit(other)


def test_units_that_differ():
    assert read_unit("m") != read_unit("m^2")
    assert read_unit("inch").factor == Fraction(254, 10_000)
    assert [read_unit(text) for text in ("apples", "", "x", "per", "5")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"\left( \dfrac{1}{2} , \, 3 \right)", r"( \frac{1}{2} , 3 )"),
        (r"\(x^2\)", "x^2"),
        (r"\[ 5 \]", "5"),
        ("x²", "x^{2}"),
        ("a₁₂", "a_{12}"),
        (r"10{,}000", "10,000"),
        (r"\text{(B)}", "(B)"),
        ("**7**", "7"),
        ("x**2", "x^2"),
        (r"\boxed{5}", "5"),
        ("5\u200b", "5"),
        ("'yes'.", "yes"),
    ],
)
def test_one_spelling(text, wanted):
    assert tidy(text) == wanted


@given(st.text(max_size=60))
def test_tidying_twice_changes_nothing_for_numbers(text):
    number = parse_number(text)
    assert parse_number(tidy(text)) == number


@given(st.fractions(max_denominator=10**6))
def test_reads_every_fraction(value):
    assert parse_number(str(value)).value == value
