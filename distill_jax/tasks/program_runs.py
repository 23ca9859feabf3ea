"""Programs run in the process's sandbox: how each ended and what it printed, remembered.

`begin` starts programs in the background; `run_programs` waits for those, and runs the others.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from distill_jax import answers
from distill_jax.sandbox import Limits, Result, SandboxError
from distill_jax.sandbox.shared import shared
from distill_jax.tasks import program_bundles

# Endings that are the same at every run, so that a program need not run twice. Time limits depend
# on the load of the machine.
_REPEATABLE = ("ok", "no_output", "error", "assertion", "syntax", "rejected", "output", "violation")
_REMEMBERED = 10_000
_RAISED = re.compile(r'^ *File "<program>", line (\d+), in <module>$', re.MULTILINE)
_REFUSED = re.compile(r'^(?: *File "<program>", )?line (\d+)(?:$|: )', re.MULTILINE)
# Of a failed program's standard error the end is kept.
ERROR_LINES, ERROR_CHARACTERS = 20, 2000
# Of what a program prints the beginning and the end are kept, so many characters each.
PRINTED_CHARACTERS = 4000
CUT = "\n[... cut ...]\n"
# Machine's failures: they say nothing of the program.
UNDECIDED = ("late", "lost")


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
        status: ok; no_output (ended well, printed nothing); error, assertion (an exception);
            syntax (no Python), rejected (refused by the sandbox's policy); timeout, memory, output
            (limits); violation (a forbidden system call); late (the batch's deadline came first),
            lost (the machine's failure).
        printed: the answer that it printed last, where status is ok; else None.
        error: the end of its standard error.
        seconds: of wall time; its part where several ran in one process.
        stdout: what it printed, its middle cut out and marked where that is long.
        lines: that it printed, blank ones not counted, where status is ok.
        line: from 1, of the top-level statement that raised, or what syntax or policy refuses;
            None where no line is to blame, or none is known.
    """

    status: str
    printed: str | None = None
    error: str = ""
    seconds: float = 0.0
    stdout: str = ""
    lines: int = 0
    line: int | None = None

    @property
    def ran(self) -> bool:
        """Whether it ended by itself without an error."""
        return self.status in ("ok", "no_output")


_Key = tuple[Limits, bytes]
_lock = threading.Lock()
_known: dict[_Key, Outcome] = {}
_begun: dict[_Key, Future[Result]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begun.clear)  # the threads stay behind


def begin(programs: Sequence[str], *, limits: Limits, workers: int = 0) -> None:
    """Starts programs that `run_programs` will be asked for, and returns at once.

    Equal ones run once, and those that ran before do not run again.

    Args:
        programs: texts.
        limits: of each.
        workers: of the process's sandbox; 0: one a core, at most 16.

    Raises:
        SandboxError: this machine cannot hold programs.
    """
    with _lock:
        _begin(programs, limits, workers)


def _begin(programs: Sequence[str], limits: Limits, workers: int) -> None:
    keys = {(limits, _digest(program)): program for program in programs}
    new = {key: one for key, one in keys.items() if key not in _known and key not in _begun}
    if new:
        futures = program_bundles.start(shared(limits, workers), list(new.values()), limits)
        _begun.update(zip(new, futures, strict=True))


def run_programs(
    programs: Sequence[str], *, deadline_s: float, limits: Limits, workers: int = 0
) -> list[Outcome]:
    """How each program ends; waits for those that were begun, and runs the others.

    Args:
        programs: B texts.
        deadline_s: for all of them, from now; those that have not ended by then are late.
        limits, workers: of `begin`.

    Raises:
        SandboxError: this machine cannot hold programs.
    """
    end = time.monotonic() + deadline_s
    keys = [(limits, _digest(program)) for program in programs]
    with _lock:
        _begin(programs, limits, workers)
        begun = {key: _begun.pop(key) for key in dict.fromkeys(keys) if key in _begun}
        known = {key: _known[key] for key in keys if key in _known}
    try:
        for key, future in begun.items():
            known[key] = _outcome(future, max(0.0, end - time.monotonic()))
    finally:
        for future in begun.values():
            future.cancel()  # what is late need not begin
    with _lock:
        if len(_known) + len(begun) > _REMEMBERED:
            _known.clear()
        _known.update({key: known[key] for key in begun if known[key].status in _REPEATABLE})
    return [known[key] for key in keys]


def abandon() -> None:
    """Drops what was begun and nobody has asked for; what runs ends at its limits, unread."""
    with _lock:
        for future in _begun.values():
            future.cancel()
        _begun.clear()


def forget() -> None:
    """Forgets what programs printed; the next run of each is a real one."""
    abandon()
    _known.clear()


def _digest(program: str) -> bytes:
    return hashlib.blake2b(program.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _outcome(future: Future[Result], left_s: float) -> Outcome:
    try:
        result = future.result(left_s)
    except TimeoutError:
        return Outcome("late")
    except (SandboxError, OSError):
        return Outcome("lost")
    seconds, stdout = result.wall_ms / 1e3, result.stdout
    if len(stdout) > 2 * PRINTED_CHARACTERS:
        stdout = stdout[:PRINTED_CHARACTERS] + CUT + stdout[-PRINTED_CHARACTERS:]
    if result.status == "ok":
        printed = answers.printed(result.stdout)
        status = "no_output" if printed is None else "ok"
        if printed is None:
            return Outcome(status, None, "", seconds, stdout)
        lines = sum(bool(line.strip()) for line in result.stdout.splitlines())
        return Outcome(status, printed.text, "", seconds, stdout, lines)
    error = "\n".join(result.stderr.strip().splitlines()[-ERROR_LINES:])[-ERROR_CHARACTERS:]
    line = _failing_line(result.stderr)
    return Outcome(_status(result), None, error, seconds, stdout, line=line)


def _failing_line(stderr: str) -> int | None:
    """The line that a failed program's standard error blames, of its last traceback.

    An exception inside a function is blamed on the top-level statement that was run, in whose step
    the run ended; a syntax error on its own line.
    """
    raised = stderr.rpartition("Traceback (most recent call last):\n")[2]
    found = _RAISED.search(raised) or _REFUSED.search(stderr)
    return None if found is None else int(found[1])


def _status(result: Result) -> str:
    last = (result.stderr.strip().splitlines() or [""])[-1]
    if result.status == "error" and re.match(r"AssertionError\b", last):
        return "assertion"
    if result.status == "rejected" and re.match(r"\w+Error: ", last):
        return "syntax"
    return result.status
