"""Answers already bought, as a file has them."""

import json
from pathlib import Path

import pytest

from distill_jax.core.errors import DataError
from distill_jax.data.problem import Problem
from distill_jax.synthesis import bought
from distill_jax.synthesis.bought import Bought

PROBLEMS = [Problem("a/1", "1+1?", "", "2"), Problem("a/2", "2+2?", "", "4")]


def written(path: Path, *rows: dict) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_answers_by_id_or_question_in_the_files_order(tmp_path: Path) -> None:
    rows = (
        {"id": "a/2", "text": "four", "tokens": 3, "model": "m"},
        {"question": "1+1?", "response": "two", "finish_reason": "length"},
        {"id": "b/1", "text": "of another problem"},
        # JSON can hold half a surrogate pair; no tokenizer takes it.
        {"id": "a/2", "text": "half \ud83d", "ended": False},
        {"id": "a/1", "text": None},
    )
    found, others = bought.read(written(tmp_path / "a.jsonl", *rows), PROBLEMS)
    assert others == 1
    assert found == [
        [Bought("two", False, "", None), Bought(None, True, "", None)],
        [Bought("four", True, "m", 3), Bought("half \ufffd", False, "", None)],
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "b/1", "text": "x"}, "none of 1 rows is of the 2 problems"),
        ({"id": "a/1", "text": 3}, "text, response is 3; wanted: a text, or null"),
        ({"id": "a/1"}, "wanted: a text, or null"),
        ({"text": "x"}, "wanted: id or question"),
    ],
)
def test_rows_that_are_no_answers(tmp_path: Path, row: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        bought.read(written(tmp_path / "a.jsonl", row), PROBLEMS)
