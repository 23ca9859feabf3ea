"""Programs checked: run in the sandbox, their answers compared, hard-coded ones found."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill_jax import answers
from distill_jax.answers.check import states_none
from distill_jax.reasoning import programs as texts_of
from distill_jax.sandbox import Limits
from distill_jax.tasks.program_runs import UNDECIDED, Outcome, begin, run_programs


@dataclass(frozen=True)
class ProgramCheck:
    """What one program did.

    Attributes:
        ran: it ended by itself, without an error.
        assertions: number of its assertions that can fail.
        equal: whether the answer it printed last equals the gold one; False also where it failed
            or printed nothing; None without a gold answer, where the answer check is undecided, or
            where the machine failed.
        hardcoded: whether its answer is written in it, or does not depend on the question's
            numbers; None where that was not tested.
        status: see `Outcome.status`; or no_program:…, see `programs.extract`;
            no_program:truncated of several rounds that did not end.
        printed: the answer that it printed, or None.
        seconds: of wall time.
        error: the end of its traceback, or why it was rejected or killed.
        lines: that it printed, where status is ok.
        line: see `Outcome.line`.
    """

    ran: bool
    assertions: int
    equal: bool | None
    hardcoded: bool | None
    status: str
    printed: str | None
    seconds: float
    error: str = ""
    lines: int = 0
    line: int | None = None


def check_program_batch(
    programs: Sequence[str],
    golds: Sequence[str] | None = None,
    *,
    questions: Sequence[str] | None = None,
    deadline_s: float = 60.0,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    workers: int = 0,
) -> list[ProgramCheck]:
    """Runs B programs in the process's sandbox and checks them; returns within `deadline_s`.

    A program that fails after printing the right answer is not right: whoever would run it gets an
    error. With questions, each program that ran and is not wrong runs once more with the numbers of
    its question changed, without its assertions: if it prints the same, its answer is hard-coded.

    Args:
        programs: B texts.
        golds: B gold answers, or None; a whole solution is reduced to its final answer.
        questions: B questions, or None: then only answers that are literals count as hard-coded.
        deadline_s: for all runs together; programs that have not ended then are undecided.
        limits: of each program.
        workers: programs at a time; 0: one a core, at most 16.

    Raises:
        ValueError: not as many golds or questions as programs.
        SandboxError: this machine cannot hold programs.
        WorkerError: a worker that checks answers does not start.
    """
    for name, given in (("golds", golds), ("questions", questions)):
        if given is not None and len(given) != len(programs):
            raise ValueError(f"{len(programs)} programs and {len(given)} {name}")
    end = time.monotonic() + deadline_s
    how: dict[str, Any] = {"limits": limits, "workers": workers}
    begin(programs, **how)
    # While they run.
    static = {program: _static(program) for program in dict.fromkeys(programs)}
    left_s = max(0.0, end - time.monotonic())
    outcomes = run_programs(programs, deadline_s=left_s, **how)
    equal = [None] * len(programs) if golds is None else _equal(outcomes, golds)
    variants: dict[int, str] = {}
    for row, (program, outcome) in enumerate(zip(programs, outcomes, strict=True)):
        if questions is not None and outcome.status == "ok" and equal[row] is not False:
            if (variant := texts_of.perturbed(program, questions[row])) is not None:
                variants[row] = variant
    left_s = max(0.0, end - time.monotonic())
    again = run_programs(list(variants.values()), deadline_s=left_s, **how) if variants else []
    changed = dict(zip(variants, again, strict=True))
    asked: Sequence[str | None] = questions or [None] * len(programs)
    return [
        ProgramCheck(
            ran=outcome.ran,
            assertions=static[program].assertions,
            equal=equal[row],
            hardcoded=static[program].constant
            or _ignores(program, asked[row], outcome, changed.get(row)),
            status=outcome.status,
            printed=outcome.printed,
            seconds=outcome.seconds,
            error=outcome.error,
            lines=outcome.lines,
            line=outcome.line,
        )
        for row, (program, outcome) in enumerate(zip(programs, outcomes, strict=True))
    ]


def _equal(outcomes: Sequence[Outcome], golds: Sequence[str]) -> list[bool | None]:
    pairs = [(gold, one.printed or "") for gold, one in zip(golds, outcomes, strict=True)]
    known = {"right": True, "wrong": False, "undecided": None}
    verdicts = [known[one.verdict] for one in answers.equivalent_batch(pairs)]
    return [
        # A fault of the data or of the machine must not train as a wrong answer.
        None if one.status in UNDECIDED or states_none(gold)
        else verdict if one.status == "ok" else False
        for one, gold, verdict in zip(outcomes, golds, verdicts, strict=True)
    ]  # fmt: skip


class _Static(NamedTuple):
    """What a program's text alone shows."""

    assertions: int
    constant: bool


def _static(program: str) -> _Static:
    return _Static(texts_of.assertions(program), texts_of.is_constant(program))


def _ignores(
    program: str, question: str | None, first: Outcome, again: Outcome | None
) -> bool | None:
    """Whether the answer does not depend on the question's numbers; None where not tested."""
    if again is None:
        ignored = question is not None and first.ran and texts_of.ignores(program, question)
        return True if ignored else None
    if again.status in UNDECIDED:
        return None
    return again.printed == first.printed
