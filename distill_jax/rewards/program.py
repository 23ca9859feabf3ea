"""Program-of-thought: a program runs in the sandbox, its printed answer meets the gold one."""

from collections.abc import Sequence
from typing import NamedTuple

from distill_jax import answers
from distill_jax.sandbox import Sandbox


class ProgramReply(NamedTuple):
    """What the sandbox replies of one program.

    Attributes:
        ok: it ended by itself, without an error, within its limits.
        rc: its exit code, minus a signal's number; None where it was not run.
        stdout: what it printed.
        stderr: its traceback, or why it was rejected or killed.
        final_runtime: seconds of wall time.
        equal_to_hint: whether the answer it printed last is right; False also where it failed or
            printed nothing, None where the checker cannot tell.
    """

    ok: bool
    rc: int | None
    stdout: str
    stderr: str
    final_runtime: float
    equal_to_hint: bool | None


def check_programs(
    sandbox: Sandbox, programs: Sequence[str], hints: Sequence[str]
) -> list[ProgramReply]:
    """Runs B programs, over all workers of the sandbox at once, and checks what they printed.

    A program that fails after printing the right answer is not right: whoever would run it gets
    an error.

    The sandbox is entered; hints are B gold answers, a whole solution is reduced to its final one.

    Raises:
        ValueError: not as many hints as programs.
        SandboxError: the sandbox is closed, or the machine failed.
        WorkerError: a worker that checks answers does not start.
    """
    if len(programs) != len(hints):
        raise ValueError(f"{len(programs)} programs and {len(hints)} hints")
    results = sandbox.run_batch(programs)
    printed = [answers.printed(r.stdout) if r.status == "ok" else None for r in results]
    verdicts = answers.equivalent_batch(
        [(hint, found.text if found else "") for hint, found in zip(hints, printed, strict=True)]
    )
    equal = {"right": True, "wrong": False, "undecided": None}
    return [
        ProgramReply(
            ok=result.status == "ok",
            rc=result.rc,
            stdout=result.stdout,
            stderr=result.stderr,
            final_runtime=result.wall_ms / 1e3,
            equal_to_hint=equal[verdict.verdict] if found else False,
        )
        for result, found, verdict in zip(results, printed, verdicts, strict=True)
    ]
