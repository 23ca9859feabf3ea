"""Task `program`: the model writes a Python program, and what that prints is the answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.reasoning import programs as texts_of
from distill_jax.sandbox import Layers, Limits
from distill_jax.sandbox.pool import possible_layers
from distill_jax.sandbox.shared import close_shared
from distill_jax.tasks import observed
from distill_jax.tasks.observed import Observed
from distill_jax.tasks.program_check import ProgramCheck, check_program_batch
from distill_jax.tasks.program_runs import Outcome, abandon, begin, run_programs
from distill_jax.tasks.task import Judged, Reply, TextTask

__all__ = ["ProgramCheck", "ProgramSettings", "ProgramTask", "check_program_batch"]

INSTRUCTION = (
    "Write one Python program in a ```python fence that computes the answer from the numbers of "
    "the problem, checks its results with assert, and prints the answer as its last line."
)

# A deadline is given for so many programs, and twice as many have twice as long.
BATCH = 512
# A completion of several rounds that did not end.
TRUNCATED = texts_of.Extracted(None, f"{texts_of.NO_PROGRAM}:truncated")


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
        f"Seconds that {BATCH} programs may take together, more in proportion; what has not ended "
        "then is undecided.",
        low=0.1,
        affects="nothing",
    )
    workers: int = setting(
        0,
        "Programs that run at a time; 0: one a core, at most 16.",
        low=0,
        high=1024,
        affects="nothing",
    )

    def limits(self) -> Limits:
        """The sandbox's limits."""
        return Limits(wall_s=self.wall_s, cpu_s=self.cpu_s, memory_mb=self.memory_mb)


class ProgramTask(TextTask):
    """Task `program`: chat prompts that ask for a program; completions judged by what it prints.

    With several rounds a turn ends with its program and the output follows; programs share nothing.
    """

    takes_turns = True
    begins = True
    repeatable = False  # time limits depend on the load of the machine

    def __init__(
        self,
        settings: DataSettings,
        tokenizer: Any,
        programs: ProgramSettings = ProgramSettings(),  # noqa: B008 - frozen
        rounds: int = 1,
    ):
        super().__init__(settings, tokenizer)
        self.programs, self.rounds = programs, rounds
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

    def begin(self, texts: Sequence[str]) -> None:
        """Starts the completions' programs: see `Task.begin`."""
        found = [texts_of.extract(text).program for text in texts]
        begin([program for program in found if program is not None], **self._how())

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The verdict on what each completion's program prints: see `Task.judge`.

        A completion without a program is wrong, as is one whose program fails; what the machine
        could not run is undecided. With several rounds one that did not end is wrong, too: else
        nothing would teach to end. details: the fields of `ProgramCheck`, where hardcoded is what
        the text alone shows; `figures` runs programs for it.
        """
        golds = [problem.answer for problem in problems]
        checks = self._checked(texts, golds=golds, ended_B=ended_B)
        right_B = np.array([one.equal is True for one in checks], bool)
        undecided_B = np.array([one.equal is None for one in checks], bool)
        stated = [one.printed for one in checks]
        return Judged(right_B, undecided_B, [asdict(one) for one in checks], stated)

    def observe(self, texts: Sequence[str], ended_B: np.ndarray | None = None) -> list[Observed]:
        """The answer that each completion's program prints, and how it fails.

        With several rounds a completion that did not end has no answer: `judge` calls it wrong.
        """
        checks = self._checked(texts, ended_B=ended_B)
        return [
            observed.of_program(texts_of.extract(text).program, check)
            for text, check in zip(texts, checks, strict=True)
        ]

    def shown(self, text: str) -> str:
        """The program in its fence; the whole completion without one."""
        return observed.shown(text)

    def asks(self, text: str) -> bool:
        """Whether a program is complete: see `Task.asks`."""
        return texts_of.is_closed(text)

    def respond(self, texts: Sequence[str]) -> list[Reply | None]:
        """The output of each turn's last program, in a fence: see `Task.respond`."""
        found = [texts_of.extract(text).program for text in texts]
        given = [program for program in found if program is not None]
        each = iter(run_programs(given, deadline_s=self._deadline_s(given), **self._how()))
        return [None if program is None else _reply(next(each)) for program in found]

    def is_void(self, text: str) -> bool:
        """Whether a turn has neither a program nor a stated answer: see `Task.is_void`."""
        return texts_of.extract(text).program is None and super().is_void(text)

    def key(self, text: str) -> str:
        """The program's tree without names, comments and layout; that of task text without one."""
        program = texts_of.extract(text).program
        return super().key(text) if program is None else texts_of.normalised(program)

    def shortened(self, text: str) -> str | None:
        """The completion, its program without comments and docstrings."""
        found = texts_of.extract(text)
        if found.program is None:
            return None
        stripped = texts_of.strip_comments(found.program)
        if stripped is None or stripped == found.program or not stripped.strip():
            return None
        closed = stripped if stripped.endswith(("\n", "\r")) else f"{stripped}\n"
        return text[: found.start] + closed + text[found.stop :]

    def guesses(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool]:
        """Whether each program's answer is hard-coded; programs run again with other numbers."""
        questions = [problem.question for problem in problems]
        return [one.hardcoded is True for one in self._checked(texts, questions=questions)]

    def flexible(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool | None]:
        """None of each: numbers of a program's text are no answers."""
        del problems
        return [None] * len(texts)

    def metrics(self, judged: Judged) -> dict[str, float]:
        """Shares of completions whose program ran, asserts something, prints a literal."""
        details = judged.details
        return {
            "programs/ran": _share([one["ran"] for one in details]) or 0.0,
            "programs/asserted": _share([one["assertions"] > 0 for one in details]) or 0.0,
            "programs/constant": _share([one["hardcoded"] is True for one in details]) or 0.0,
        }

    def figures(
        self, problems: Sequence[Problem], texts: Sequence[str], judged: Judged
    ) -> dict[str, Any]:
        """Shares of programs that ran and that assert something; failures: class -> number;
        hardcoded_rate: of the right programs, which run again for it with other numbers."""
        rows = np.flatnonzero(judged.right_B).tolist()
        questions = [problems[row].question for row in rows]
        again = self._checked([texts[row] for row in rows], questions=questions)
        tested = [one.hardcoded for one in again if one.hardcoded is not None]
        counts = Counter(one["status"] for one in judged.details)
        metrics = self.metrics(judged)
        figures = {
            "ran": metrics["programs/ran"],
            "asserted": metrics["programs/asserted"],
            "hardcoded_rate": _share(tested),
            "failures": {name: n for name, n in sorted(counts.items()) if name != "ok"},
        }
        return {"programs": figures}

    def _checked(
        self,
        texts: Sequence[str],
        golds: Sequence[str] | None = None,
        questions: Sequence[str] | None = None,
        ended_B: np.ndarray | None = None,
    ) -> list[ProgramCheck]:
        """What the program of each completion did."""
        found = [texts_of.extract(text) for text in texts]
        if ended_B is not None and self.rounds > 1:
            pairs = zip(found, ended_B, strict=True)
            found = [one if ended else TRUNCATED for one, ended in pairs]
        equal = None if golds is None else False
        out = [ProgramCheck(False, 0, equal, None, one.failure, None, 0.0) for one in found]
        rows = [row for row, one in enumerate(found) if one.program is not None]
        checks = check_program_batch(
            [str(found[row].program) for row in rows],
            None if golds is None else [golds[row] for row in rows],
            questions=None if questions is None else [questions[row] for row in rows],
            deadline_s=self._deadline_s(rows),
            **self._how(),
        )
        for row, check in zip(rows, checks, strict=True):
            out[row] = check
        return out

    def _how(self) -> dict[str, Any]:
        """How programs are run."""
        return {"limits": self.programs.limits(), "workers": self.programs.workers}

    def _deadline_s(self, programs: Sequence[Any]) -> float:
        """Seconds that so many programs may take together, from when the verdict is asked for."""
        return self.programs.deadline_s * -(-len(programs) // BATCH)

    def close(self) -> None:
        """Ends the process's sandboxes; they start again where a program is run."""
        abandon()
        close_shared()


def _reply(one: Outcome) -> Reply:
    text = one.stdout
    if not one.ran:
        said = one.error or f"the program was stopped: {one.status}"
        text = f"{text.rstrip()}\n{said}".lstrip()
    return Reply(texts_of.fenced(text, "output") + "\n", failed=not one.ran)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
