"""Formulas: reading, and comparing by value; in this process, without workers."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.answers import library
from distill_jax.answers.algebra import Algebra
from distill_jax.answers.evaluate import TooLarge, same_equations, same_values
from distill_jax.answers.expression import Ambiguous, Unreadable, names, read_expression
from distill_jax.answers.spelling import tidy

ROOT = Path(__file__).resolve().parents[2]


def read(text):
    return read_expression(tidy(text))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("-2^2", "-4", True),
        ("(-2)^2", "4", True),
        ("2^3^2", "512", True),
        ("2^-1", "1/2", True),
        ("6/2*3", "9", True),
        ("2-3-4", "-5", True),
        ("x^10", "x^{10}", True),
        (r"x\frac{1}{2}", "x/2", True),  # no mixed number
        (r"2\frac12", "2.5", True),
        (r"-2\frac12+0", "-5/2", True),
        (r"3\cdot 2\frac12", "15/2", True),
        (r"3\cdot 2\frac12", "3", False),
        (r"2\frac{x}{2}", "x", True),
        (r"0.5\frac12", "1/4", True),
        (r"2^2\frac12", "2", True),
        (r"2\frac12^2", "1/2", True),
        ("√16", "4", True),
        (r"\frac12", "0.5", True),
        (r"\sin 2x", r"2\sin x\cos x", True),
        (r"\sin^2 x", r"(\sin x)^2", True),
        (r"\sin^{-1} 1", r"\pi/2", True),
        (r"\log_2 8", "3", True),
        (r"\ln e^2", "2", True),
        ("|x-1|", "|1-x|", True),
        ("2|x|", "|2x|", True),
        (r"\lfloor 2.5\rfloor", "2", True),
        (r"\sqrt[3]{-8}", "-2", True),
        ("n!", "n(n-1)!", True),
        ("5!!", "15", True),
        ("C(5,2)", "10", True),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", True),
        (r"e^{i\pi}", "-1", True),
        ("(1+i)^2", "2i", True),
        (r"\sin\pi", "0", True),
        ("2^{3000}+1-2^{3000}", "1", True),
        ("2^{3000}", "2^{3000}+1", False),
        ("1+10^{-80}", "1", False),
        ("10^{-300}", "2\\cdot 10^{-300}", False),
        (r"\infty", r"-\infty", False),
        ("x_1+x_2", "x_2+x_1", True),
        ("x_1", "x_2", False),
        (r"\theta", "theta", True),
        ("ln(x^2)", "2ln(x)", True),  # wherever both are real
        ("x^2", "|x|^2", True),
        ("x^3", "|x|^3", False),
    ],
)
def test_values(first, second, same):
    assert same_values(read(first), read(second)) is same
    assert same_values(read(second), read(first)) is same


@pytest.mark.parametrize("text", ["1/2x", r"1/2\frac12", "a/bc", r"\sin x(x+1)"])
def test_two_readings_are_ambiguous(text):
    with pytest.raises(Ambiguous):
        read(text)


@pytest.mark.parametrize(
    "text",
    ["", "(", "1+", "f(x)", "x 2", "a'", "5 $ 6", "(" * 60 + "1" + ")" * 60, "+".join("1" * 700)],
)
def test_unreadable(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text", ["10^{10^{10}}", "9^9^9^9", "((9!)!)!", "1000000!", r"e^{e^{e^{10}}}", "2^{-10^7}"]
)
def test_too_large(text):
    with pytest.raises(TooLarge):
        same_values(read(text), read("5"))


def test_equations_are_equal_up_to_a_factor():
    line = read("2x"), read("6y+4")
    assert same_equations((read("x-3y"), read("2")), line) is True
    assert same_equations((read("x-3y"), read("3")), line) is False
    assert same_equations((read("3y"), read("x-2")), line, positive=True) is False


def test_variables_of_a_tree():
    assert names(read(r"x_1 + \alpha y - \pi e i")) == {"x_1", "alpha", "y"}


def test_a_factor_for_units():
    finding = Algebra().values(r"2\pi", r"200\pi", Fraction(100))
    assert finding.verdict == "right"


TREES = st.recursive(
    st.sampled_from(["x", "y", "2", "3", "7", r"\pi"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
        st.tuples(inner, inner).map(lambda t: rf"\frac{{{t[0]}}}{{{t[1]}}}"),
        inner.map(lambda t: f"({t})^2"),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_values_agree_with_sympy(text):
    """sympy's simplification as a slow oracle."""
    sympy = pytest.importorskip("sympy")
    x, y = sympy.symbols("x y")
    plain = text.replace(r"\pi", "pi").replace("^", "**")
    while r"\frac" in plain:
        before, _, after = plain.rpartition(r"\frac")
        top, rest = _group(after)
        bottom, rest = _group(rest)
        plain = f"{before}(({top})/({bottom})){rest}"
    value = sympy.sympify(plain, locals={"x": x, "y": y})
    shifted = sympy.expand(value) if value.is_finite is not False else value
    if value.has(sympy.zoo, sympy.nan):
        assert same_values(read(text), read(text)) is None
        return
    assert same_values(read(text), read(str(shifted).replace("**", "^"))) is not False
    assert same_values(read(text), read(f"({text})+10^{{-20}}")) is not True


def _group(text):
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[1:place], text[place + 1 :]
    raise AssertionError(text)


NEEDS_LIBRARY = [
    (r"\int_0^1 x dx", r"\frac{1}{2}"),
    (r"\sum_{k=1}^{10} k", "55"),
    (r"\prod_{k=1}^{3} k", "6"),
    (r"\lim_{x\to 0} \frac{\sin x}{x}", "1"),
]


@pytest.mark.parametrize("pair", NEEDS_LIBRARY)
def test_math_verify_reads_its_own_operators(pair):
    pytest.importorskip("math_verify")
    first, second = (tidy(text) for text in pair)
    assert Algebra().values(first, second, Fraction(1)).verdict == "right"
    assert Algebra().values(first, second + "+1", Fraction(1)).verdict == "wrong"


@pytest.mark.parametrize("pair", NEEDS_LIBRARY)
def test_without_math_verify_its_operators_are_undecided_and_the_reason_names_the_extra(
    pair, monkeypatch
):
    monkeypatch.setattr(library, "INSTALLED", False)
    for first, second in (pair, pair[::-1]):
        found = Algebra().values(tidy(first), tidy(second), Fraction(1))
        assert found.verdict == "undecided" and "[math-verify]" in found.reason
    assert "math-verify" not in Algebra().values("f(x)", "2", Fraction(1)).reason
    assert Algebra().values("2x", "x+x", Fraction(1)).verdict == "right"


WITHOUT = """
import sys
sys.modules["math_verify"] = sys.modules["sympy"] = None
sys.argv = ["worker"]
from distill_jax.answers import library, worker
library.INSTALLED = False
for first, second in worker._WARM:
    assert worker.compare(first, second, worker.Algebra()).verdict == "right"
library.prepare()
print(worker.compare(r"\\int_0^1 x dx", "1/2", worker.Algebra()).verdict)
"""


def test_a_worker_needs_neither_math_verify_nor_sympy():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("undecided\n", "")
