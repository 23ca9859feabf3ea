"""Answers already bought: a file of {id or question, text or response}, matched to problems."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.core.text import encodable
from distill_jax.data.problem import Problem, content_hash
from distill_jax.data.rows import read_rows

_TEXTS = ("text", "response")


class Bought(NamedTuple):
    """A text of the file; None where the row has none (its error, or null)."""

    text: str | None
    ended: bool
    model: str
    tokens: int | None


def read(path: Path, problems: Sequence[Problem]) -> tuple[list[list[Bought]], int]:
    """The answers of each problem, in the file's order, and the number of rows of other problems.

    Further columns that are read: `model`, `tokens` (a number), `ended` or `finish_reason`. The
    files of `python -m launch.export_answers` have this form.

    Raises:
        DataError: a column of another type (file, line), or no row is of these problems.
    """
    places: dict[str, int] = {}
    for number, problem in enumerate(problems):
        places.setdefault(f"hash {problem.content_hash}", number)
        places[f"id {problem.id}"] = number
    found: dict[int, list[Bought]] = defaultdict(list)
    others = 0
    for where, row in read_rows(path):
        place = places.get(_problem(row, where))
        if place is None:
            others += 1
        else:
            found[place].append(_bought(row, where))
    if not found:
        raise DataError(
            f"{path}: none of {others} rows is of the {len(problems)} problems",
            wanted="their ids or questions",
        )
    return [found[number] for number in range(len(problems))], others


def _problem(row: Mapping[str, Any], where: str) -> str:
    """How the row names its problem: "id ID", or "hash HASH" of its question."""
    if row.get("id") is not None:
        return f"id {row['id']}"
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        got = f"{where}: columns {', '.join(row) or 'none'}"
        raise DataError(got, wanted="id or question, and text or response")
    return f"hash {content_hash(question)}"


def _bought(row: Mapping[str, Any], where: str) -> Bought:
    column = next((name for name in _TEXTS if name in row), None)
    text = None if column is None else row[column]
    if column is None or not (text is None or isinstance(text, str)):
        got = f"{where}: {', '.join(_TEXTS)} is {text!r:.60}"
        raise DataError(got, wanted="a text, or null for none")
    tokens, model = row.get("tokens"), row.get("model")
    ended = row.get("ended", row.get("finish_reason") != "length")
    return Bought(
        None if text is None else encodable(text),
        ended is not False,
        model if isinstance(model, str) else "",
        tokens if type(tokens) is int else None,
    )
