"""Task `program`: the model writes a Python program, and what that prints is the answer."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from distill_jax import answers
from distill_jax.answers.check import states_none
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.reasoning import programs as texts_of
from distill_jax.sandbox import Layers, Limits
from distill_jax.sandbox.pool import possible_layers
from distill_jax.sandbox.shared import close_shared
from distill_jax.tasks.program_runs import UNDECIDED, Outcome, run_programs
from distill_jax.tasks.task import Judged, TextTask

INSTRUCTION = (
    "Write one Python program in a ```python fence that computes the answer from the numbers of "
    "the problem, checks its results with assert, and prints the answer as its last line."
)


@dataclass(frozen=True)
class ProgramSettings:
    """Task program: what is asked for, and the limits of a program."""

    instruction: str = setting(
        INSTRUCTION, "Text behind the question, after data.chat.instruction; empty: none."
    )
    wall_s: float = setting(5.0, "Seconds on the clock that a program may take.", low=0.1)
    cpu_s: float = setting(2.0, "Seconds of CPU time that a program may take.", low=0.1)
    memory_mb: int = setting(512, "MiB of address space that a program may take.", low=128)
    deadline_s: float = setting(
        60.0,
        "Seconds that a batch of programs may take; what has not ended then is undecided.",
        low=0.1,
        affects="nothing",
    )
    workers: int = setting(
        0, "Programs that run at a time; 0: one a core.", low=0, high=1024, affects="nothing"
    )

    def limits(self) -> Limits:
        """The sandbox's limits."""
        return Limits(wall_s=self.wall_s, cpu_s=self.cpu_s, memory_mb=self.memory_mb)


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
        status: see `Outcome.status`; or no_program:…, see `programs.extract`.
        printed: the answer that it printed, or None.
        seconds: of wall time.
        error: the end of its traceback, or why it was rejected or killed.
    """

    ran: bool
    assertions: int
    equal: bool | None
    hardcoded: bool | None
    status: str
    printed: str | None
    seconds: float
    error: str = ""

    @property
    def undecided(self) -> bool:
        """Whether the machine failed, so that nothing is known of the program."""
        return self.status in UNDECIDED


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
        workers: programs at a time; 0: one a core.

    Raises:
        ValueError: not as many golds or questions as programs.
        SandboxError: this machine cannot hold programs.
        WorkerError: a worker that checks answers does not start.
    """
    for name, given in (("golds", golds), ("questions", questions)):
        if given is not None and len(given) != len(programs):
            raise ValueError(f"{len(programs)} programs and {len(given)} {name}")
    end = time.monotonic() + deadline_s
    outcomes = run_programs(programs, deadline_s=deadline_s, limits=limits, workers=workers)
    equal = [None] * len(programs) if golds is None else _equal(outcomes, golds)
    variants: dict[int, str] = {}
    for row, (program, outcome) in enumerate(zip(programs, outcomes, strict=True)):
        if questions is not None and outcome.status == "ok" and equal[row] is not False:
            if (variant := texts_of.perturbed(program, questions[row])) is not None:
                variants[row] = variant
    again = run_programs(
        list(variants.values()),
        deadline_s=max(0.0, end - time.monotonic()),
        limits=limits,
        workers=workers,
    )
    changed = dict(zip(variants, again, strict=True))
    asked: Sequence[str | None] = questions or [None] * len(programs)
    return [
        ProgramCheck(
            ran=outcome.ran,
            assertions=texts_of.assertions(program),
            equal=equal[row],
            hardcoded=_hardcoded(
                program,
                asked[row],
                outcome,
                changed.get(row),
            ),
            status=outcome.status,
            printed=outcome.printed,
            seconds=outcome.seconds,
            error=outcome.error,
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


def _hardcoded(
    program: str, question: str | None, first: Outcome, again: Outcome | None
) -> bool | None:
    if texts_of.is_constant(program):
        return True
    if again is None:
        ignored = question is not None and first.ran and texts_of.ignores(program, question)
        return True if ignored else None
    if again.status in UNDECIDED:
        return None
    return again.printed == first.printed


class ProgramTask(TextTask):
    """Task `program`: chat prompts that ask for a program; completions judged by what it prints."""

    def __init__(
        self,
        settings: DataSettings,
        tokenizer: Any,
        programs: ProgramSettings = ProgramSettings(),  # noqa: B008 - frozen
    ):
        super().__init__(settings, tokenizer)
        self.programs = programs
        if programs.wall_s > programs.deadline_s:
            raise ConfigError(
                f"programs.wall_s={programs.wall_s} with deadline_s={programs.deadline_s}",
                wanted="a batch's deadline of at least one program's limit",
            )
        possible_layers(Layers(), allow_partial=False)  # before training, not after hours of it

    @property
    def chat(self) -> ChatSettings:
        """The prompt format with the instruction to write a program."""
        both = (self.settings.chat.instruction, self.programs.instruction)
        return replace(self.settings.chat, instruction="\n".join(filter(None, both)))

    def response(self, problem: Problem, *, bare: bool) -> str | None:
        """The worked solution where it holds a program; a bare answer would be hard-coded."""
        has = not bare and texts_of.extract(problem.solution).program is not None
        return problem.solution if has else None

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The verdict on what each completion's program prints: see `Task.judge`.

        A completion without a program is wrong, as is one whose program fails; what the machine
        could not run is undecided. details: the fields of `ProgramCheck`.
        """
        del ended_B  # a complete fence counts, whether the text ended or not
        found = [texts_of.extract(text) for text in texts]
        rows = [row for row, one in enumerate(found) if one.program is not None]
        checks = check_program_batch(
            [str(found[row].program) for row in rows],
            [problems[row].answer for row in rows],
            questions=[problems[row].question for row in rows],
            deadline_s=self.programs.deadline_s,
            limits=self.programs.limits(),
            workers=self.programs.workers,
        )
        of_row = dict(zip(rows, checks, strict=True))
        all_ = [
            of_row.get(row) or ProgramCheck(False, 0, False, None, one.failure, None, 0.0)
            for row, one in enumerate(found)
        ]
        right_B = np.array([one.equal is True for one in all_], bool)
        undecided_B = np.array([one.equal is None for one in all_], bool)
        stated = [one.printed for one in all_]
        return Judged(right_B, undecided_B, [asdict(one) for one in all_], stated)

    def answers(self, texts: Sequence[str]) -> list[str | None]:
        """The answer that each completion's program prints; None where it prints none."""
        found = [texts_of.extract(text).program for text in texts]
        outcomes = run_programs(
            [program for program in found if program is not None],
            deadline_s=self.programs.deadline_s,
            limits=self.programs.limits(),
            workers=self.programs.workers,
        )
        printed = iter(outcomes)
        return [None if program is None else next(printed).printed for program in found]

    def figures(self, details: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Of programs: shares that ran and that have assertions; hardcoded_rate, of the right ones
        that were tested; failures: class -> number."""
        right = [one for one in details if one["equal"] is True]
        tested = [one for one in right if one["hardcoded"] is not None]
        statuses = Counter(one["status"] for one in details)
        failed = {name: count for name, count in sorted(statuses.items()) if name != "ok"}
        figures = {
            "ran": _share([one["ran"] for one in details]),
            "asserted": _share([one["assertions"] > 0 for one in details]),
            "hardcoded_rate": _share([one["hardcoded"] for one in tested]),
            "failures": failed,
        }
        return {"programs": figures}

    def close(self) -> None:
        """Ends the process's sandboxes; they start again where a program is run."""
        close_shared()


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
