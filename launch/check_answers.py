"""Checks a file of answers: python -m launch.check_answers FILE.jsonl

Each line is an object with gold (an answer or a whole solution), response (the model's text) or
predicted (its answer alone), and optionally label (right or wrong, as true, 1, "right", …). Prints
the counts of right, wrong and undecided, the speed, and the agreement with the labels.
--math_verify adds the same for bare math-verify (extra math-verify): the gold between dollars, its
own extraction.
Exit codes: 0 done, 2 wrong input, 130 after Ctrl-C.
"""

import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from distill_jax import answers
from distill_jax.core import files
from distill_jax.core.errors import DataError, MissingExtraError
from launch.arguments import OneLine, tool_parser

VERDICTS = ("right", "wrong", "undecided")
_RIGHT = (True, 1, "1", "right", "true", "correct", "yes")
_WRONG = (False, 0, "0", "wrong", "false", "incorrect", "no")
SHOWN = 20


class Row(NamedTuple):
    """One answer to check; text is the whole response, or None if the row gives predicted."""

    line: int
    gold: str
    text: str | None
    predicted: str
    label: str | None


Judge = Callable[[Row], tuple[str, str]]  # a row's verdict, and why


class Checked(NamedTuple):
    """Verdict, reason and milliseconds of each row by one checker."""

    name: str
    verdicts: Sequence[str]
    reasons: Sequence[str]
    milliseconds: Sequence[float]
    seconds: float


def read_rows(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        DataError: no file, a line that is no JSON object, or a column is missing or not text.
    """
    if not path.exists() or path.is_dir():
        raise DataError(f"{path} is no file", wanted="JSONL with columns gold and response")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", wanted="JSONL as UTF-8") from None
    # Not splitlines(): it also splits at characters that JSON strings may contain.
    lines = enumerate(text.split("\n"), 1)
    rows = [_row(line, path, number) for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path} has no rows", wanted="JSONL with columns gold and response")
    return rows


def _row(line: str, path: Path, number: int) -> Row:
    where = f"{path}:{number}"
    try:
        cells = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})", wanted="one object a line") from None
    wanted = "columns gold, and response or predicted"
    if not isinstance(cells, dict):
        raise DataError(f"{where}: a {type(cells).__name__}", wanted=f"an object with {wanted}")
    names = [name for name in ("response", "predicted") if name in cells]
    if "gold" not in cells or not names:
        raise DataError(f"{where}: columns {', '.join(cells) or 'none'}", wanted=wanted)
    gold, given = cells["gold"], cells[names[0]]
    for name, value in (("gold", gold), (names[0], given)):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"{where}: {name} is {value!r}", wanted="text or a number")
    gold, given = str(gold), str(given)
    text = given if names[0] == "response" else None
    found = answers.extract(given) if text is not None else answers.Answer(given)
    return Row(number, gold, text, found.text if found else "", _label(cells.get("label"), where))


def _label(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    key = value.lower() if isinstance(value, str) else value
    if key == "undecided":
        return "undecided"
    if key in _RIGHT:
        return "right"
    if key in _WRONG:
        return "wrong"
    raise DataError(f"{where}: label {value!r}", wanted="right or wrong, true or false, 1 or 0")


def check(name: str, rows: Sequence[Row], judge: Judge) -> Checked:
    """All rows, one after the other, by one checker."""
    judge(Row(0, "sqrt(2)+1", None, "1+sqrt(2)", None))  # starts what is slow to start
    said, milliseconds, start = [], [], time.perf_counter()
    for row in rows:
        began = time.perf_counter()
        said.append(judge(row))
        milliseconds.append((time.perf_counter() - began) * 1e3)
    seconds = time.perf_counter() - start
    verdicts, reasons = zip(*said, strict=True)
    return Checked(name, verdicts, reasons, milliseconds, seconds)


def ours(row: Row) -> tuple[str, str]:
    """The verdict of `distill_jax.answers`, and its reason."""
    if row.text is not None:
        found = answers.check_batch([row.gold], [row.text])[0]
    else:
        found = answers.equivalent(row.gold, row.predicted)
    return found.verdict, found.reason


def by_math_verify() -> Judge:
    """math-verify as its users call it, with its own limits and extraction.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import math_verify
    except ImportError as error:
        raise MissingExtraError(
            f"--math_verify without math-verify ({error})", fix="pip install -e '.[math-verify]'"
        ) from error
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def judge(row: Row) -> tuple[str, str]:
        gold = row.gold if "\\boxed" in row.gold else f"${row.gold}$"
        given = row.text if row.text is not None else f"${row.predicted}$"
        same = math_verify.verify(math_verify.parse(gold), math_verify.parse(given))
        return "right" if same else "wrong", ""

    return judge


def summary(rows: Sequence[Row], runs: Sequence[Checked]) -> Table:
    """A table with a column for each checker: counts, agreement with the labels, times."""
    table = Table("", *(run.name for run in runs), title=f"{len(rows):,} answers")
    for verdict in VERDICTS:
        table.add_row(verdict, *(f"{run.verdicts.count(verdict):,}" for run in runs))
    labelled = [k for k, row in enumerate(rows) if row.label is not None]
    if labelled:
        cells = []
        for run in runs:
            agree = sum(run.verdicts[k] == rows[k].label for k in labelled)
            cells.append(f"{agree:,} of {len(labelled):,} ({100 * agree / len(labelled):.1f}%)")
        table.add_row("agrees with label", *cells)
        for said in ("right", "wrong"):
            wrongly = ([r.verdicts[k] == said != rows[k].label for k in labelled] for r in runs)
            table.add_row(f"wrongly {said}", *(str(sum(each)) for each in wrongly))
    times = [sorted(run.milliseconds) for run in runs]
    table.add_row("median ms", *(f"{statistics.median(each):.3f}" for each in times))
    table.add_row("p99 ms", *(f"{each[int(0.99 * len(each))]:.3f}" for each in times))
    table.add_row("slowest ms", *(f"{each[-1]:.3f}" for each in times))
    table.add_row("answers a second", *(f"{len(rows) / run.seconds:,.0f}" for run in runs))
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, checks, prints."""
    parser = tool_parser("check_answers", __doc__)
    parser.add_argument("file", type=Path, help="JSONL: gold, response or predicted, label")
    parser.add_argument("--math_verify", action="store_true", help="also by bare math-verify")
    parser.add_argument("--output", type=Path, help="JSONL of verdicts and reasons, a row each")
    shown = "disagreements to print (default: %(default)s)"
    parser.add_argument("--show", type=int, default=SHOWN, help=shown)
    flags = parser.parse_args(argv)
    try:
        with OneLine():
            rows = read_rows(flags.file)
            if flags.output:
                _check_output(flags.output, flags.file)
            judges: dict[str, Judge] = {"distill_jax": ours}
            if flags.math_verify:
                judges["math-verify"] = by_math_verify()
            runs = [check(name, rows, judge) for name, judge in judges.items()]
            if flags.output:
                _write(flags.output, rows, runs)
            Console().print(summary(rows, runs))
            print("\n".join(_disagreements(rows, runs)[: flags.show]))
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _disagreements(rows: Sequence[Row], runs: Sequence[Checked]) -> list[str]:
    """Rows in which the label or the other checker differs from our verdict."""
    out = []
    for k, row in enumerate(rows):
        said = {"label": row.label, **{run.name: run.verdicts[k] for run in runs[1:]}}
        others = [f"{name} {verdict}" for name, verdict in said.items() if verdict is not None]
        ours = runs[0].verdicts[k]
        if any(verdict not in (None, ours) for verdict in said.values()):
            where = f"line {row.line}: {ours} ({runs[0].reasons[k]}), {', '.join(others)}"
            out.append(f"{where}: {row.gold!r} / {row.predicted!r}")
    return out


def _check_output(path: Path, source: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise DataError(f"--output={path}", wanted="a file in an existing folder")
    if path.exists() and path.samefile(source):
        raise DataError(f"--output={path} is the input", wanted="another file")


def _write(path: Path, rows: Sequence[Row], runs: Sequence[Checked]) -> None:
    with files.whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for k, row in enumerate(rows):
            cells = {"line": row.line, "gold": row.gold, "predicted": row.predicted}
            cells |= {"verdict": runs[0].verdicts[k], "reason": runs[0].reasons[k]}
            cells |= {"milliseconds": round(runs[0].milliseconds[k], 4), "label": row.label}
            cells |= {run.name: run.verdicts[k] for run in runs[1:]}
            file.write(json.dumps(cells) + "\n")


if __name__ == "__main__":
    main()
