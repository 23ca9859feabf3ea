"""Rows of JSONL, JSON and Parquet files, and what each column of a row means."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.data import trace_forms
from distill_jax.data.problem import Problem

_QUESTIONS = ("question", "problem", "prompt", "messages")
_KNOWN = {"id", "level", "subject", "type"}
_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(\.\d+)?%?")
_AS_JSONL = 'write one object a line into a .jsonl file, such as {"question": …, "answer": …}'


class Columns(NamedTuple):
    """Names of columns; None looks for the usual ones."""

    question: str | None = None
    solution: str | None = None
    answer: str | None = None


_USUAL = Columns()


def read_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) of a file; where names file and line for errors.

    Raises:
        DataError: the file or one of its rows cannot be read, or it is empty.
    """
    reader = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}.get(file.suffix)
    if reader is None:
        wanted = ".jsonl, .json or .parquet"
        raise DataError(f"{file}: unknown kind of file", wanted=wanted, fix=_AS_JSONL)
    empty = True
    for where, row in reader(file):
        if not isinstance(row, Mapping):
            got = f"{where}: a {type(row).__name__}"
            raise DataError(got, wanted="an object with columns", fix=_AS_JSONL)
        empty = False
        yield where, row
    if empty:
        fix = "write rows into it, or name another file"
        raise DataError(f"{file}: no rows", wanted="at least one", fix=fix)


def _jsonl(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except ValueError as error:  # bad JSON or bad UTF-8
                text = line.decode(errors="replace").strip()
                if number == 1 and _like_csv(text):
                    raise DataError(
                        f"{where}: not JSON; it looks like the header of a CSV file: {text!r:.60}",
                        wanted=".jsonl (one JSON object a line), .json or .parquet",
                        fix=_AS_JSONL,
                    ) from error
                raise DataError(f"{where}: not JSON: {error}", fix="mend the line") from error


def _like_csv(line: str) -> bool:
    """Whether a line is words with commas, semicolons or tabs, and no part of objects or lists."""
    return not any(mark in line for mark in "{}[]") and any(mark in line for mark in ",;\t")


def _json(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}", fix="mend the file") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: a {type(rows).__name__}", wanted="a list of rows", fix=_AS_JSONL)
    yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet  # half a second to import, so only where asked for

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: not Parquet: {error}", fix="write the file again") from error
    yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))


def problem_of_row(
    row: Mapping[str, Any],
    where: str,
    name: str,
    columns: Columns = _USUAL,
    *,
    gold_needed: bool = True,
) -> Problem:
    """The problem that a row holds.

    question|problem|prompt is the question (messages: the user's turn, and the assistant's as
    solution). solution is the worked solution, or answer where there is no solution and it ends
    in `#### N` or holds a box; the gold answer is the column answer or is in the solution. Forms of
    published traces: see `trace_forms.usual_columns`.

    Args:
        where: file and line, for errors.
        name: the problem's id where the row has none.
        gold_needed: False: a problem without a gold answer gets answer "".

    Raises:
        DataError: a column is missing, empty or of the wrong type; no gold answer is found.
    """
    if columns == _USUAL:
        row = trace_forms.usual_columns(row, where)
    question_column = columns.question or next((c for c in _QUESTIONS if c in row), None)
    if question_column is None or question_column not in row:
        wanted = columns.question or "question, problem, prompt or messages"
        raise DataError(
            f"{where}: columns {', '.join(row) or 'none'}",
            wanted=wanted,
            fix="rename the column, or set data.question_column (data.answer_column, "
            "data.solution_column) to its name",
        )
    question, reply = _question(row[question_column], where, question_column)
    solution_column, answer_column = columns.solution or "solution", columns.answer or "answer"
    for asked in (columns.solution, columns.answer):
        if asked is not None and asked not in row:
            raise DataError(f"{where}: no column {asked}", wanted="the column that was set")
    solution = _text(row, solution_column, where) or reply
    answer = _text(row, answer_column, where)
    if not solution and answer and gold_of(answer) is not None:
        solution = answer
    gold = (gold_of(answer) or answer) if answer else gold_of(solution)
    if not gold and gold_needed:
        got = f"{where}: no gold answer in {answer_column} or {solution_column}"
        raise DataError(
            got,
            wanted="a column answer, or a solution with #### N or \\boxed{}",
            fix="give the row an answer, or remove it; set data.answer_column if the column has "
            "another name",
        )
    used = {question_column, solution_column, answer_column} | _KNOWN
    subject = row.get("subject", row.get("type"))
    return Problem(
        id=str(row.get("id", name)),
        question=question,
        solution=solution,
        answer=gold or "",
        level=_level(row.get("level"), where),
        subject=None if subject is None else str(subject),
        extra={key: value for key, value in row.items() if key not in used},
        columns_read={key: value for key, value in row.items() if key in used},
    )


def odd_gold(problems: Sequence[Problem], places: Sequence[str]) -> str:
    """A warning of gold answers that are words, in a file that mostly has `#### number`; or "".

    places: file and line of each problem's row.
    """
    numbers = [_NUMBER.fullmatch(problem.answer) is not None for problem in problems]
    marked = [gold_of(problem.solution) is not None for problem in problems]
    both = sum(a and b for a, b in zip(numbers, marked, strict=True))
    odd = [place for place, n in enumerate(numbers) if not n and not marked[place]]
    if not odd or 2 * both <= len(problems):
        return ""
    listed = "; ".join(f"{places[one]} ({problems[one].answer!r:.40})" for one in odd[:3])
    return (
        f"WARNING: {len(odd)} of {len(problems)} rows have a gold answer that is no number and has "
        f"no ####, where {both} rows end in #### number: {listed}{'; …' if len(odd) > 3 else ''}; "
        "remove these rows if this is no answer"
    )


def gold_of(solution: str) -> str | None:
    r"""The gold answer of a worked solution: after the last `####`, or in the last \boxed{}.

    Packages of one layer do not import each other, so this is not `answers.extract`; gold
    solutions are clean and need no more.
    """
    if "####" in solution:
        return solution.rsplit("####", 1)[1].strip() or None
    _, mark, rest = solution.rpartition("\\boxed")
    if not mark:
        return None
    if not rest.startswith("{"):  # MATH has a few \boxed 3
        return re.split(r"[\s$]", rest.strip(), maxsplit=1)[0] or None
    depth = 0
    for place, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[1:place].strip() or None
    return None


def _question(value: Any, where: str, column: str) -> tuple[str, str]:
    """(question, the assistant's reply or "") of a text or a list of messages."""
    if isinstance(value, str) and value.strip():
        return value, ""
    if isinstance(value, list) and all(isinstance(m, Mapping) for m in value):
        turns = [(m.get("role"), m.get("content")) for m in value if m.get("role") != "system"]
        roles, contents = [role for role, _ in turns], [content for _, content in turns]
        texts = [text for text in contents if isinstance(text, str) and text.strip()]
        if roles in (["user"], ["user", "assistant"]) and len(texts) == len(turns):
            return texts[0], texts[1] if len(texts) == 2 else ""
    raise DataError(
        f"{where}: field {column} is {value!r:.60}",
        wanted="a text that is not empty, or messages of one user and at most one assistant",
    )


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    """A text column; "" where it is missing or null. Numbers become text."""
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise DataError(f"{where}: field {column} is {value!r:.60}", wanted="a text, not empty")
    whole = isinstance(value, float) and value.is_integer()  # AMC's answers are 142.0
    return str(int(value) if whole else value)


def _level(value: Any, where: str) -> int | None:
    """3 from 3, "3" or "Level 3"; None from null and MATH's "Level ?"."""
    if value is None or value == "Level ?":
        return None
    text = str(value).removeprefix("Level ").strip()
    if isinstance(value, bool) or not text.isdecimal():
        raise DataError(f"{where}: field level is {value!r:.60}", wanted='3 or "Level 3"')
    return int(text)
