"""Stage kind executed: the first step at which a solution's program fails, found by running it.

A row: {"id", "sample", "problem", "steps", "step_tokens", "label", "final_answer_correct",
"step_split"}, ProcessBench's form. label is −1 where the program prints the right
answer, else the step in which it raises, or that does not parse or is refused. Running says nothing
of a program that prints a wrong answer, or that exceeds a limit: such solutions are counted and
make no row; stage step_labels labels them, too.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data import trace_rows
from distill_jax.data.token_bytes import text_and_ends
from distill_jax.data.trace_rows import Trace
from distill_jax.evaluation.process_bench import NONE_WRONG
from distill_jax.reasoning import programs
from distill_jax.reasoning.program_fences import fences
from distill_jax.reasoning.steps import Format, Step
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import TASK, Shared, StageSettings
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.step_labels import Source, split_rows

SPLIT = Format("program")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class ExecutedSettings(StageSettings, kind="executed", makes="rows"):
    """Labels of the steps of programs, from where they fail."""

    data: str = setting("traces", "Solutions: a stage of kind traces, or its file.", ref="rows")

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data is empty", wanted="a stage of kind traces, or a file of rows")

    def shared(self) -> tuple[str, ...]:
        """Settings of the programs, and of the tokenizer."""
        return ("seed", "tokenizer_size", *TASK, "data", "student.path")

    def check_with(self, shared: Shared, name: str) -> None:
        """See StageSettings."""
        SPLIT.check_task(shared.task, f"{name}: step_split")


def step_of_line(
    tok: Any, tokens: Sequence[int], found: Sequence[Step], line: int | None
) -> int | None:
    """The step of a completion that holds a line of its program.

    None where the line is None or blank, or where the completion has more than one fence of Python:
    the steps of those that were not run have no label.

    Args:
        tok, tokens: of the completion.
        found: its steps.
        line: of the program, from 1.
    """
    text, ends = text_and_ends(tok, tokens)
    program = programs.extract(text)
    if line is None or program.program is None or sum(one.python for one in fences(text)) != 1:
        return None
    begin = program.start
    for _ in range(line - 1):
        begin = _LINE.match(text, begin, program.stop).end()  # type: ignore[union-attr]
    # The last byte of the line: the first may be in the token that ends the step before.
    written = _LINE.match(text, begin, program.stop)[0].rstrip()  # type: ignore[index]
    if not written:
        return None
    last = len(text[: begin + len(written)].encode("utf-8", "surrogateescape"))
    token = int(np.searchsorted(ends, last))
    return next((number for number, step in enumerate(found) if step.stop >= token), None)


def label(step: int | None, detail: Mapping[str, Any]) -> tuple[int | None, str]:
    """(first wrong step, −1 or None; what became of the solution, for the figures).

    Args:
        step: that holds the line which failed, see `step_of_line`.
        detail: the fields of a `ProgramCheck`.
    """
    if detail["equal"] is True:
        return NONE_WRONG, "right"
    if detail["equal"] is None:
        return None, "undecided"
    if step is not None:
        return step, "failed"
    if detail["ran"]:
        return None, "wrong_answer"
    no_program = detail["status"].startswith(programs.NO_PROGRAM)
    return None, "no_program" if no_program else "no_line"


def _rows(run: Run, source: Source, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    kept = source.rows
    ended_B = np.array([row.ended for row in kept])
    texts = [row.completion for row in kept]
    judged = run.data.task.judge([row.problem for row in kept], texts, ended_B)
    for row, split, detail in zip(kept, source.steps, judged.details, strict=True):
        step = step_of_line(run.data.tokenizer, row.tokens, split, detail["line"])
        first_wrong, what = label(step, detail)
        counts[what] += 1
        if first_wrong is not None:
            yield {
                "id": row.id,
                "sample": row.sample,
                "problem": row.question,
                "steps": [run.data.text(one.tokens).strip() for one in split],
                "step_tokens": [one.tokens for one in split],
                "label": first_wrong,
                "final_answer_correct": first_wrong == NONE_WRONG,
                "step_split": SPLIT.split,
            }


def _prepare(run: Run, stage: Stage[ExecutedSettings]) -> list[Trace] | None:
    """The rows; None where a stage of this run has to make them first."""
    data = stage.settings.data
    return trace_rows.read(run.rows(data)) if run.is_there(data) else None


def _run(
    run: Run, stage: Stage[ExecutedSettings], directory: Path, rows: list[Trace] | None
) -> dict[str, Any]:
    data = stage.settings.data
    rows = trace_rows.read(run.rows(data)) if rows is None else rows
    source, counts = split_rows(run, rows, data, SPLIT), Counter[str]()
    found = list(_rows(run, source, counts))
    if not found:
        raise DataError(
            f"{data}: none of {len(rows)} solutions is right or fails at a known line: "
            + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())),
            wanted="some",
            fix="let a better student write them",
        )
    write_rows(directory / ROWS_FILE, found)
    said = {name: counts[name] for name in ("right", "failed", "wrong_answer", "undecided")}
    said |= {name: counts[name] for name in ("no_line", "no_program")}
    run.say(f"{stage.name}: " + ", ".join(f"{name} {count}" for name, count in said.items()))
    return {"rows": len(found), **said, "empty_rows": source.empty}


KIND = register(Kind(ExecutedSettings, _run, prepare=_prepare))
