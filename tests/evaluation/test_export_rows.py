"""Rows of exported answers: columns, numbers, verdicts, errors."""

import json

import numpy as np
import pytest

from distill_jax.data.problem import Problem
from distill_jax.evaluation.answer_rows import answered, number, unanswered
from distill_jax.evaluation.top_tokens import TopOfResponse

# What the exports of the intrinsic-reward system hold, and ours besides.
THEIRS = (
    "index question prompt ground_truth ground_truth_text ground_truth_num response answer_text "
    "answer_num top_ids top_probs error".split()
)
OURS = ["id", "level", "right", "verdict", "ended", "response_ids"]

PROBLEM = Problem("p/0", "How many?", "<<500*2=1000>>\n#### 1,000", "1,000", level=2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", 1000),
        ("$1,234,567.50", 1234567.5),
        ("72 dollars", 72),
        ("25%", 25),
        ("-3", -3),
        (r"\frac{1}{2}", 0.5),
        ("9007199254740993", 9007199254740992.0),  # 2^53 + 1: a double holds no such integer
        ("1e400", None),
        ("x + 1", None),
        ("1,00", None),
        ("", None),
    ],
)
def test_numbers(text, value):
    assert number(text) == value and type(number(text)) is type(value)


def test_a_row_to_be_answered():
    row = unanswered(3, PROBLEM, "<user>How many?", None)
    assert set(row) == {*THEIRS, *OURS}
    assert (row["index"], row["id"], row["level"]) == (3, "p/0", 2)
    assert row["ground_truth"] == PROBLEM.solution
    assert (row["ground_truth_text"], row["ground_truth_num"]) == ("1,000", 1000)
    bare = unanswered(0, Problem("p/1", "?", "", "x+1"), None, "too long")
    assert bare["ground_truth"] == "x+1" and bare["ground_truth_num"] is None
    assert bare["error"] == "too long" and bare["right"] is None and bare["response"] is None


def test_answers():
    rows = [unanswered(i, PROBLEM, "?", None) for i in range(4)]
    texts = ["500*2\n#### 1000", "#### 100", "I do not know", "#### 5 or 7"]
    tops = [
        TopOfResponse(np.array([[4, 2]], np.int32), np.array([[0.75, 1 / 3e6]], np.float32))
    ] * 4
    out = answered(rows, texts, [[4]] * 4, [True, True, False, True], tops)
    assert [row["right"] for row in out] == [True, False, False, False]
    assert [row["verdict"] for row in out] == ["right", "wrong", "wrong", "wrong"]
    assert [row["answer_text"] for row in out] == ["1000", "100", None, "5 or 7"]
    assert [row["answer_num"] for row in out] == [1000, 100, None, None]
    assert [row["ended"] for row in out] == [True, True, False, True]
    assert out[0]["top_ids"] == [[4, 2]] and out[0]["top_probs"] == [[0.75, 3.33333e-07]]
    assert out[0]["response_ids"] == [4] and out[2]["response"] == "I do not know"
    assert [list(row) for row in out] == [list(row) for row in rows]  # columns keep their order
    assert json.loads(json.dumps(out, allow_nan=False)) == out


def test_what_cannot_be_decided_is_not_right():
    row = unanswered(0, Problem("p", "?", "", "9^{9^{9^9}}"), "?", None)
    made = answered([row], ["#### 5"], [[1]], [True], None)[0]
    assert made["verdict"] == "undecided" and made["right"] is False
    assert made["top_ids"] is None and made["top_probs"] is None
