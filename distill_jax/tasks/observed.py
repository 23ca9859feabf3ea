"""What a completion shows without its gold answer: the answer, and failures that anyone can see."""

import re
from typing import NamedTuple

from distill_jax.reasoning import programs
from distill_jax.tasks.program_check import ProgramCheck

# Kinds of failures.
NO_ANSWER, NO_PROGRAM = "no_answer", "no_program"
CRASH, TIMEOUT, MEMORY, ASSERTION = "crash", "timeout", "memory", "assertion"
EMPTY, NO_VALUE, SEVERAL_LINES = "empty", "no_value", "several_lines"

_KINDS = {
    "error": CRASH, "syntax": CRASH, "rejected": CRASH, "violation": CRASH, "output": CRASH,
    "timeout": TIMEOUT, "memory": MEMORY, "assertion": ASSERTION, "no_output": EMPTY,
}  # fmt: skip
# What Python prints where it has computed no number and no expression.
_NO_VALUE = re.compile(r"None|nan|\[\s*\]|\(\s*\)|\{\s*\}|set\(\)|<.*>|\w*(?:Error|Exception)\b.*")
_PLACE = re.compile(r'File "<program>", line (\d+)')


class Observed(NamedTuple):
    """A completion as seen without gold.

    Attributes:
        answer: the final answer as written; None where it has none.
        failures: (kind, detail) of each failure; a detail is bounded, of several lines or "".
    """

    answer: str | None
    failures: tuple[tuple[str, str], ...] = ()


def of_program(program: str | None, check: ProgramCheck) -> Observed:
    """A completion by how its program ended; program: None without one.

    What was not run (the machine failed, or a completion of several rounds did not end) has no
    answer and no failure: nothing is known of the program.
    """
    if program is None:
        return Observed(None, ((NO_PROGRAM, ""),))
    failures: list[tuple[str, str]] = []
    if check.status in _KINDS:
        failures.append((_KINDS[check.status], _detail(program, check)))
    if check.printed is not None and _NO_VALUE.fullmatch(check.printed):
        failures.append((NO_VALUE, check.printed))
    if check.printed is not None and check.lines > 1:
        failures.append((SEVERAL_LINES, f"{check.lines} lines"))
    return Observed(check.printed, tuple(failures))


def _detail(program: str, check: ProgramCheck) -> str:
    """The end of standard error; of a failed assertion its line last."""
    places = _PLACE.findall(check.error)
    lines = program.splitlines()
    if check.status != "assertion" or not places or not 0 < int(places[-1]) <= len(lines):
        return check.error
    return f"{check.error}\nline {places[-1]}: {lines[int(places[-1]) - 1].strip()}"


def shown(text: str) -> str:
    """The program of a completion in a fence; the whole text without one."""
    program = programs.extract(text).program
    return text if program is None else programs.fenced(program)
