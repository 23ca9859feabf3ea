r"""Signs of reward hacking: values by hand."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.evaluation.hacking import (
    correlation,
    indicators,
    loops,
    repeated_ngrams,
    several_answers,
)


def test_all_of_them_by_hand():
    texts = ["#### 4", r"\boxed{4} or \boxed{5}", "the answer is 4, I mean the answer is 6", "hm"]
    tokens = [[1, 2], [1, 2, 3, 4], list(range(6)), [7] * 64]
    ended, stated = [True, True, False, False], ["4", "5", "6", None]
    got = indicators(texts, tokens, ended, np.array([1.0, 0.0, 0.0, 0.0]), stated)
    correlated = float(np.corrcoef([2, 4, 6, 64], [1, 0, 0, 0])[0, 1])
    assert got == pytest.approx(
        {
            "length_mean": 19.0,
            "length_p10": 2.6,  # 2 + .3·(4 − 2)
            "length_p50": 5.0,
            "length_p90": 46.6,  # 6 + .7·(64 − 6)
            "length_max": 64.0,
            "truncated": 0.5,
            # None, 0 of 1, 0 of 3, 60 of 61
            "repeated_ngrams": (0 + 0 + 60 / 61) / 3,
            "looping": 0.25,
            "several_answers": 0.5,
            "no_answer": 0.25,
            "reward_length_correlation": correlated,
        }
    )


def test_nothing_to_look_at():
    assert set(indicators([], [], [], np.zeros(0), []).values()) == {None}
    one = indicators(["4"], [[1]], [True], np.ones(1), ["4"])
    assert one["repeated_ngrams"] is None and one["reward_length_correlation"] is None


def test_repeated_ngrams():
    assert repeated_ngrams([1, 2, 3]) is None
    assert repeated_ngrams([1, 2, 3, 4, 5]) == 0.0
    # 1212 2121 1212 2121: two of four are new
    assert repeated_ngrams([1, 2, 1, 2, 1, 2, 1]) == 0.5
    assert repeated_ngrams([1, 1, 2], n=1) == pytest.approx(1 / 3)


@given(st.integers(1, 16), st.lists(st.integers(0, 9), min_size=16, max_size=16))
def test_a_loop_of_every_period(period, cell):
    looping = (cell[:period] * 64)[:64]
    assert loops([99, 98, *looping])
    assert not loops(looping[:63])
    # One token of the last ones that occurs nowhere else breaks it.
    assert not loops([*looping[:40], 100, *looping[41:]])


def test_no_loop():
    assert not loops(list(range(100)))
    assert not loops((list(range(17)) * 10)[:64])  # period 17
    assert loops((list(range(17)) * 10)[:64], period=17)
    assert not loops([])


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("", False),
        (r"\boxed{4}", False),
        (r"\boxed{4} so the answer is 4.0.", False),
        (r"The answer is 0.5. \boxed{\frac{1}{2}}", False),
        (r"The answer is 0.5. \boxed{\frac{1}{3}}", True),
        ("#### 4\n#### 4", False),
        ("#### 4\n#### 5", True),
        ("#### Steps\n#### 5", False),
        ("Answer: 1,000. The final answer is $1000", False),
        ("Answer: 1,000. The final answer is **1001**", True),
        ("I answer questions: 4 or 5", False),
    ],
)
def test_several_answers(text, several):
    assert several_answers(text) is several


PIECES = (r"\boxed{", r"\boxed{a{}", "####", "#### 1", "answer ", "answer is ", "answer:1\n", "{")


@pytest.mark.parametrize("piece", [*PIECES, "answer" + " " * 500])
def test_long_texts_take_linear_time(piece):
    start = time.process_time()
    several_answers((piece * 100_000)[:100_000])
    assert time.process_time() - start < 20


def test_correlation():
    up = np.array([1.0, 2.0, 3.0])
    assert correlation(up, 2 * up + 7) == pytest.approx(1.0)
    assert correlation(up, -up) == pytest.approx(-1.0)
    assert correlation(up, np.ones(3)) is None
    assert correlation(np.ones(3), up) is None
    assert correlation(up[:1], up[:1]) is None
