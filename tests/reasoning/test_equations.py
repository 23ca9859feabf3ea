r"""Which equations a text writes, and which are true; arithmetic in exact fractions."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.reasoning import arithmetic, equations
from distill_jax.reasoning.arithmetic import NotArithmeticError

TRUE, FALSE = [True], [False]

COUNTED = [
    ("3 + 4 = 7.", TRUE),
    ("3 + 4 = 8.", FALSE),
    ("2+2=5; 3*3=9", [False, True]),
    ("$5 × 2 = $10", TRUE),
    ("1,200 + 300 = 1,500", TRUE),
    ("1,200 + 300 = 1.5", FALSE),
    ("24 clips + 48 clips = 72 clips", TRUE),
    ("5 boxes * 4 apples = 20 apples", TRUE),
    ("3 red apples + 4 green apples = 7 apples in all", TRUE),
    ("In 3 days he eats 3 * 2 = 6 apples", TRUE),
    ("There are 12 months, so 12*5=60", TRUE),
    ("There are 12 months 12*5=60", TRUE),
    ("He makes a total of 3 + 4 = 8", FALSE),
    ("a = 3+4 = 7 = 8", [True, False]),  # each = of a chain
    ("3*60 = 60*3 = 180", [True, True]),
    ("(3+4=7)", TRUE),
    ("3 + 4\n= 7", TRUE),
    ("3 + 4\n7 = 7", []),
    ("2 x 3 = 6", TRUE),
    ("2x3=6", TRUE),
    ("12 ÷ 4 = 3", TRUE),
    ("12/4 = 3 per day", TRUE),
    ("2(3+4) = 14, (1+1)(2) = 4", [True, True]),
    ("2^3 = 8, 2**3 = 8, 2^{3} = 9, 5² = 25", [True, True, False, True]),
    ("-2^2 = -4", TRUE),
    ("2^3^2 = 512", TRUE),  # from the right
    ("8 - 3 - 2 = 3, 8/2/2 = 2", [True, True]),
    ("so -3 + 5 = 2", TRUE),
    ("3-4 = -1", TRUE),
    ("1 1/2 + 1/2 = 2", TRUE),
    (".5 * 10 = 5", TRUE),
    ("**3 + 4 = 7**", TRUE),
    ("- 3 + 4 = 7\n* 2 + 2 = 4\n1. 1 + 1 = 2\n2) 1 + 1 = 2", [True, True, True, True]),
    (r"\(3 \times 4 = 12\), $3 \cdot 4 = \boxed{12}$", [True, True]),
    (r"&= 3 + 4 \\ &= 7", TRUE),
    (r"\frac{1}{2} + \dfrac{1}{2} = 1", TRUE),
    (r"2\frac{1}{2} + 1 = 3.5, 6/2(3) = 9", [True, True]),
    (r"2 \times 2\frac{1}{2} = 5, -2\frac{1}{2} - 1 = -3.5", [True, True]),
    ("7 - -3 = 10, 2 * -3 = -6, 2^-1 = 0.5", [True] * 3),
    (r"5\text{ apples} + 2\text{ apples} = 7\text{ apples}", TRUE),
    (r"1{,}000 + 1 = 1{,}001", TRUE),
    ("100 - 50 - 30 = $20 more", TRUE),
    (r"$\frac{1}{2}(4+6) = 5$ and $\sqrt{16} = 4$", TRUE),
    (r"180^\circ - 30^{\circ} = 150°", TRUE),
    ("3cm * 4cm = 12cm², 3 cm × 4 cm = 12 cm²; 3 cm * 4 cm = 12 cm^2", [True] * 3),
    (r"3 \cdot 4\text{ cm}^2 = 12\text{ cm}^{2}", TRUE),
    ("• 4 + 4 = 8\n→ 4 + 2 = 6\n`3 + 3 = 6` | a) 1 + 1 = 2", [True] * 4),
    ("1/3 + 1/6 = 2/6 + 1/6 = 3/6 = 1/2", [True] * 3),
    # Rounding: from two digits behind the point on.
    ("10/3 = 3.33", TRUE),
    ("10/3 = 3.3", FALSE),
    ("10/3 = 3", FALSE),
    ("10/3 = 3.34", FALSE),
    ("10/3 = 3.333333", TRUE),
    ("2/3 = .67, 1/8 = 0.13, 1/8 = 0.12, 1/8 = 0.14", [True, True, True, False]),
    ("1.33 * 3 = 4", FALSE),  # a calculation is not rounded
    # Percent: hundredths, or the number as it stands.
    ("25/100 = 25%", TRUE),
    ("100 - 25 = 75%", TRUE),
    ("50 * 20% = 10", TRUE),
    (r"50 * 20\% = 11", FALSE),
    ("1/3 * 1 = 33.33%", TRUE),
    ("1/3 * 1 = 33.43%", FALSE),
]
LEFT_OUT = [
    "",
    "no equation",
    "5 = 5",
    "the answer = 5",
    "1 hour = 60 minutes",
    "half of 10 = 5",
    "half of 10 + 4 = 7",
    "20% of 50 + 0 = 10",
    "1/2 of 10 + 2 = 7",
    "5 minus 3 + 0 = 2",
    "3 + 1 = 2 squared",
    "2x = 4",
    "2x + 2 = 4",
    "2 + 2 = 4x",
    r"2 + 1 = 3\pi",
    "2xy + 2 = 4",
    "2 + 2 = 4ab",
    "2x² + 1 = 9",
    "2xy^2 + 1 = 9",
    "x² + 1 = 9",
    "5 less 3 + 0 = 2",
    "n + 3 = 7",
    "x - 3 = 2",
    "x -3 = 2",
    "profit - 3 = 2",
    "f(3) + 1 = 5",
    r"\sqrt{4} + 1 = 4",
    "5! + 1 = 121",
    "2 + 3 = 5!",
    "3 : 4 + 1 != 5",
    "3 + 1 >= 4",
    "3 + 4 ≈ 7",
    "3 / 0 = 0",
    "3 + = 7",
    "3 ++ 4 = 7",
    "3 - +4 = -1",
    "3 - - -4 = 7",
    "2 * - -4 = 8",
    "5%% + 1 = 1",
    "(3 + 4] = 7",
    r"\frac12 + 1 = 1.5",
    "3 + 4 =",
    "2 * 60 minutes = 2 hours",
    "1 hour + 30 minutes = 90 minutes",
    "2 weeks + 3 days = 17 days",
    "30 seconds + 30 seconds = 1 minute",
    "4^0.5 = 2",
    "0^0 = 1",
    "9^9^9^9 = 3",
    "10^100000 = 1",
    "1" * 41 + " + 1 = 2",
    "(" * 30 + "1" + ")" * 30 + " + 1 = 2",
    "1+" * 150 + "1 = 151",
]


LATEX_LEFT_OUT = [
    "Let $5 + 2x + 3 = 8$",
    r"$2 \cdot 3x + 1 = 7$",
    "$a_1 + 4 = 7$",
    r"$\log_2 8 + 1 = 4$",
    "3 + 4i = 7",
    "$7^{x} + 1 = 8$",
    r"$\frac{4}{x} + 1 = 3$",
    "$101_2 = 5 + 0$",
    r"$\angle ABC + 30 = 90$",
    "$2|x| + 1 = 3$",
    r"$2\binom{4}{2} + 1 = 7$",
    r"$3\sqrt{4} + 1 = 7$",
    r"$\sqrt[3]{8} + 1 = 3$",
    r"$\lfloor 3.7 \rfloor + 1 = 4$",
    r"$\gcd(4, 6) + 1 = 3$",
    r"$5 \pmod 3 + 1 = 2$",
    "$[3, 4] + 1 = 7$",
    "a(3+4) = 14, 3+4(a) = 7",
]
LEFT_OUT += LATEX_LEFT_OUT


@pytest.mark.parametrize(("text", "verdicts"), COUNTED)
def test_equations_of_a_text(text, verdicts):
    assert equations.judged(text) == verdicts
    assert equations.judged_marks(text) == []


@pytest.mark.parametrize("text", LEFT_OUT)
def test_no_equation_of_arithmetic(text):
    assert equations.judged(text) == []


def test_other_units_leave_out_one_step_of_a_chain():
    assert equations.judged("3*60 = 180 minutes = 3 hours") == [True]
    assert equations.judged("5 * 10 cents = 50 cents = $0.50") == [True]


def test_marks_are_equations_and_stand_aside_of_the_text():
    text = "48/2 = <<48/2=24>>24 clips, then <<24+48=73>>73, <<5=5>> <<n=4>> << 1+1 >>"
    assert equations.marks(text) == ["48/2=24", "24+48=73", "5=5", "n=4", " 1+1 "]
    assert equations.judged_marks(text) == [True, False, True]
    assert equations.judged(text) == [True]  # 48/2 = 24, as a reader sees it
    assert equations.without_marks("48/2 = <<48/2=24>>\n") == "48/2 = 24\n"
    assert equations.without_marks("48/2 = <<48/2=24>> $24") == "48/2 =  $24"


def value(text):
    return arithmetic.evaluate(arithmetic.lex(text), Fraction(1, 100))


whole = st.integers(0, 10**6)


def joined(parts):
    (a, x), sign, (b, y) = parts
    if x is None or y is None or (sign == "/" and y == 0):
        found = None
    else:
        found = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else 0}[sign]
    return f"({a} {sign} {b})", found


@given(
    st.recursive(
        whole.map(lambda n: (str(n), Fraction(n))),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(joined),
        max_leaves=8,
    )
)
def test_values_beside_python_fractions(case):
    text, expected = case
    if expected is None or len(text) > arithmetic.MAX_LENGTH:
        with pytest.raises(NotArithmeticError):
            value(text)
    else:
        assert value(text) == expected
        assert value("-" + text) == -expected
        assert value(f"7 - {text} * 2") == 7 - 2 * expected


@given(whole, whole, st.integers(-3, 3))
def test_a_sum_is_true_only_when_it_is_right(a, b, off):
    said = f"{a:,} + ${b} = {a + b + off:,}"
    assert equations.judged(said) == [off == 0]
    assert equations.judged_marks(f"<<{a}+{b}={a + b + off}>>") == [off == 0]


@given(st.text(alphabet="0123456789+-*/^=()[]{}<>.,%$x ab\\n\n_²", max_size=80))
def test_any_text_is_read_without_an_error(text):
    for verdict in equations.judged(text) + equations.judged_marks(text):
        assert isinstance(verdict, bool)


SIZE = 40_000


@pytest.mark.parametrize(
    "piece",
    ["1", "1,111", "1+", "(", ")", "=", "1=", "1 ", "1/2 ", "<<", "<<1=", "<<1+1=2>>", "a", "a ",
     "1 apple ", "^2", "2^", "\\frac{", "\\text{", "- ", "**", "1\n=", ".1", "1,", "{,}111", "(1=",
     "1)=", "####", "$"],
)  # fmt: skip
def test_long_texts_are_read_in_linear_time(piece):
    text = (piece * SIZE)[:SIZE]
    start = time.process_time()
    equations.judged(text)
    equations.judged_marks(text)
    assert time.process_time() - start < 5  # about 0.4; quadratic would be 20 and more
