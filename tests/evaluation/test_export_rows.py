"""Rows of exported answers: columns, numbers, verdicts, errors."""

import json

import pytest

from distill_jax.data.problem import Problem
from distill_jax.evaluation.export_rows import Answer, number, row

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
def test_numbers(text: str, value: float | None) -> None:
    assert number(text) == value and type(number(text)) is type(value)


def test_a_row_without_an_answer() -> None:
    made = row(3, PROBLEM, "<user>How many?", None, "too long")
    assert set(made) == {*THEIRS, *OURS}
    assert (made["index"], made["id"], made["level"]) == (3, "p/0", 2)
    assert made["ground_truth"] == PROBLEM.solution
    assert (made["ground_truth_text"], made["ground_truth_num"]) == ("1,000", 1000)
    bare = row(0, Problem("p/1", "?", "", "x+1"), None, None, "too long")
    assert bare["ground_truth"] == "x+1" and bare["ground_truth_num"] is None
    assert bare["error"] == "too long" and bare["prompt"] is None
    columns = [*list(made)[list(made).index("response") : -1]]
    assert columns[0] == "response" and columns[-1] == "top_probs" and len(columns) == 9
    assert all(bare[name] is None for name in columns)


def test_answers() -> None:
    top = [[4, 2]], [[0.75, 3.33333e-07]]
    texts = {
        "500*2\n#### 1000": ("right", "1000"),
        "#### 100": ("wrong", "100"),
        "I do not know": ("undecided", None),
        "#### 5 or 7": ("wrong", "5 or 7"),
    }
    out = [
        row(i, PROBLEM, "?", Answer(text, [4], i != 2, *found, *top), None)
        for i, (text, found) in enumerate(texts.items())
    ]
    assert [one["right"] for one in out] == [True, False, False, False]
    assert [one["verdict"] for one in out] == [verdict for verdict, _ in texts.values()]
    assert [one["answer_text"] for one in out] == ["1000", "100", None, "5 or 7"]
    assert [one["answer_num"] for one in out] == [1000, 100, None, None]
    assert [one["ended"] for one in out] == [True, True, False, True]
    assert out[0]["top_ids"] == [[4, 2]] and out[0]["top_probs"] == [[0.75, 3.33333e-07]]
    assert out[0]["response_ids"] == [4] and out[2]["response"] == "I do not know"
    assert out[0]["error"] is None
    bare = row(0, PROBLEM, "?", None, "too long")
    assert [list(one) for one in out] == [list(bare)] * 4  # columns keep their order
    assert json.loads(json.dumps(out, allow_nan=False)) == out


def test_without_top_tokens_their_columns_are_empty() -> None:
    made = row(0, PROBLEM, "?", Answer("#### 5", [1], True, "undecided"), None)
    assert made["top_ids"] is None and made["top_probs"] is None and made["right"] is False
