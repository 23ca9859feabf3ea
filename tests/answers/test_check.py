import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.answers import check_batch, equivalent, extract
from distill_jax.core.errors import DataError
from tests.profile import NIGHTLY

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
# Checks end within three seconds on a quiet machine (docs/benchmarks.md); tests run on busy ones.
HANGS_SECONDS = 20.0


@pytest.fixture(scope="module", autouse=True)
def started():
    """Starting the workers takes a second, once, and belongs to no check."""
    assert check_batch([r"\sqrt{8}", "2x"], [r"\boxed{2\sqrt2}", r"\boxed{x+x}"])[0].right


def mutations(answer):
    """The answer with its last digit changed to each other one."""
    place = max((k for k, char in enumerate(answer) if char.isdigit()), default=None)
    if place is None:
        return []
    return [
        answer[:place] + digit + answer[place + 1 :]
        for digit in "0123456789"
        if digit != answer[place]
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason="GSM8K and MATH are not part of the repository")
@pytest.mark.parametrize(
    ("files", "column", "count", "least"),
    [
        (("gsm8k/train.jsonl", "gsm8k/test.jsonl"), "answer", 8792, 1.0),
        (("math/math_sample_500.jsonl",), "solution", 500, 0.99),
    ],
)
def test_gold_answers_equal_themselves_and_not_their_mutations(files, column, count, least):
    rows = [json.loads(line) for file in files for line in (DATA / file).open(encoding="utf-8")]
    assert len(rows) == count
    right = 0
    for row in rows:
        found = extract(row[column])
        assert found is not None, row
        right += check_batch([row[column]], [f"So the answer is ${found.text}$."])[0].right
        for other in mutations(found.text):
            assert not equivalent(found.text, other).right, (found.text, other)
    assert right >= least * count


def test_a_verdict_says_why_and_how_long():
    verdict = equivalent("1", "2")
    assert (verdict.verdict, verdict.reason) == ("wrong", "whole numbers")
    assert verdict.milliseconds > 0
    assert not verdict.right


def test_a_batch_reads_answers_out_of_texts_and_keeps_their_order():
    golds = ["24", "7", "<<1+2=3>>\n#### 3", r"so \boxed{\frac12}", r"\sqrt{8}", r"\sqrt{8}"]
    texts = ["<<20+4=24>>\n#### 24", "I give up: 7", "#### 4", "The answer is 0.5."]
    texts += [r"\boxed{2\sqrt 2}", r"\boxed{2\sqrt 3}"]
    found = check_batch(golds, texts)
    assert [v.verdict for v in found] == ["right", "wrong", "wrong", "right", "right", "wrong"]
    assert found[1].reason == "no final answer"


def test_a_batch_of_unequal_lengths_is_an_error():
    with pytest.raises(ValueError):
        check_batch(["1"], [])


@pytest.mark.parametrize("answer", [5, None, b"5"])
def test_an_answer_that_is_no_text_is_an_error(answer):
    with pytest.raises(DataError, match="wanted: text"):
        equivalent("5", answer)


@pytest.mark.parametrize(
    "bomb",
    ["9" * 10**6, "9**9**9**9", "{" * 2000, "1e400000000", r"\frac{" * 300, "1 " * 400]
    + ["10^{10^{10}}", "C(10^8,5*10^7)", "((9!)!)!", "5^(5^(5^(5^(5^5))))", "(" * 900, "9!" * 200]
    + [r"\sum_{k=1}^{10^{10}} k!", r"\int_0^{10^{10}} x^{x^x} dx", "x^" * 300, "!" * 500]
    + [r"\sqrt" * 150, "1/" * 300 + "1", "|" * 500, "-" * 900 + "1", "2^{" * 40 + "2" + "}" * 40]
    + [r"\prod_{n=1}^{10^9} (1+\frac1n)", "x!!!!!!!!", r"\gcd(10^{9999},6)", "1_" * 200],
)
def test_bombs_end_in_time_and_are_never_right(bomb):
    start = time.perf_counter()
    assert not equivalent("5", bomb).right
    assert time.perf_counter() - start < HANGS_SECONDS


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_compare_exactly(first, second):
    wanted = "right" if first == second else "wrong"
    assert equivalent(str(first), str(second)).verdict == wanted


@given(st.integers(-(10**9), 10**9))
def test_spellings_of_one_integer_are_equal(number):
    for text in (f"{number:,}", f"{number}.00", f"{number} apples", f"{number}/1", f"${number}$"):
        assert equivalent(str(number), text).right
        assert not equivalent(str(number + 1), text).right


@settings(deadline=None)
@given(st.integers(-99, 99), st.integers(2, 99), st.integers(1, 9))
def test_roots_either_way_round(a, b, c):
    gold = rf"\frac{{{a}+\sqrt{{{b}}}}}{{{c}}}"
    assert equivalent(gold, f"({a} + sqrt({b}))/{c}").right
    assert equivalent(f"({a} + sqrt({b + 1}))/{c}", gold).verdict == "wrong"


PIECES = st.sampled_from(
    r"1 2 7 0 -3 0.5 x y n i e \pi \infty + - * / = < > \le \ne ^ _ ! % $ \$ , ; : ( ) [ ] { } \{"
    r" \} | ' . ... \frac \frac12 \sqrt \sin \log \binom \text{cm} cm dollars or and \pm \cup \in"
    r" \circ ^\circ \begin{pmatrix} \end{pmatrix} & \\ (A) yes \sum \int \lim \boxed{ ² ½ √ 10^ 9^"
    r" 99999 ** \left( \right) \overline{3} million base 3:30 pm \emptyset f(x) sqrt( Matrix([["
    r" ]]) 1e9 \,".split()
)


@pytest.mark.slow
@settings(max_examples=10_000 if NIGHTLY else 1_000, deadline=None)
@given(st.lists(PIECES, max_size=8), st.lists(PIECES, max_size=8), st.booleans())
def test_any_text_gets_a_verdict_in_time_the_same_either_way_round(first, second, apart):
    glue = " " if apart else ""
    gold, predicted = glue.join(first), glue.join(second)
    start = time.perf_counter()
    found = equivalent(gold, predicted)
    assert time.perf_counter() - start < HANGS_SECONDS
    assert found.verdict in ("right", "wrong", "undecided")
    assert equivalent(predicted, gold).verdict == found.verdict


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_characters_get_a_verdict(first, second):
    assert equivalent(first, second).verdict == equivalent(second, first).verdict


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        # A negative space closes a gap within a number; a plain blank does not.
        ("11111111100", r"11,\! 111,\! 111,\! 100", "right"),
        ("11111111101", r"11,\! 111,\! 111,\! 100", "wrong"),
        ("(1,112)", "(1, 112)", "right"),
        # Values joined by words, each between its own signs.
        ("1,2,3", "$1$ and $2$ and $3$", "right"),
        ("1,2,3", "$1$ and $2$ and $4$", "wrong"),
        ("21,16,11", "$21,16$ or $11$", "right"),
        # A ratio of two names has a value.
        (r"\frac{1}{\sqrt6}", r"\frac{NO}{BO}=\frac{1}{\sqrt6}", "right"),
        (r"\frac{1}{2}", r"\frac{NO}{BO}=\frac{1}{3}", "wrong"),
        ("5", "x/y=5", "right"),
        ("x=5", "x/y=5", "wrong"),
        ("3", "2/x=3", "wrong"),
        # 11:21 is a time of day only where no ratio is named.
        ("11:21", "V_1:V_2=11:21", "right"),
        ("11:21", "V_1:V_2=21:11", "wrong"),
        ("11:21 am", "V_1:V_2=11:21", "wrong"),
        ("11:21", "12:21", "wrong"),
        # Groups that give values to the same names are tuples, in the order of the first group.
        ("(5,2),(7,2)", "p=5,q=2;p=7,q=2", "right"),
        ("(5,2),(7,3)", "p=5,q=2;p=7,q=2", "wrong"),
        ("(2,5),(2,7)", "p=5,q=2;p=7,q=2", "wrong"),
        ("(5,2),(2,7)", "p=5,q=2;q=7,p=2", "right"),
        ("(5,2),(7,2)", "p=5,q=2;q=7,p=2", "wrong"),
    ],
)
def test_forms_found_with_labelled_cases(gold: str, predicted: str, verdict: str) -> None:
    assert equivalent(gold, predicted).verdict == verdict
    assert equivalent(predicted, gold).verdict == verdict
