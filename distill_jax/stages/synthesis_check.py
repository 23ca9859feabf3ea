"""Whether written solutions are right: by the gold answer, or by agreement of different ones."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.evaluation import selection
from distill_jax.reasoning import programs
from distill_jax.synthesis import failures
from distill_jax.tasks import Task
from distill_jax.tasks.program import ProgramTask, check_program_batch

# Evidence that an answer is right.
GOLD, AGREEMENT = "gold", "agreement"
# Some of the classes of answers that are not verified.
UNVERIFIED, HARDCODED, NO_ASSERTION = "unverified", "hardcoded", "no_assertion"


class Written(NamedTuple):
    """An answer as it came.

    Attributes:
        kind: "ok", or why its text is of no use: one of `failures.CLASSES`, "missing" (never
            asked for), "special_token".
        text: "" where there is none.
        tokens: number of tokens of the text; None: not known.
        model: name of the model that wrote it.
        ids: the text's tokens as they were drawn; None: not drawn with the run's tokenizer.
    """

    problem: Problem
    sample: int
    kind: str
    text: str
    tokens: int | None = None
    model: str = ""
    ids: Sequence[int] | None = None


@dataclass(frozen=True)
class Checked:
    """What became of an answer.

    Attributes:
        kind: class: "ok" where it has an answer, until it is judged; then "verified", or why not.
        answer: the answer that it states or prints; None: none.
        equal: whether the answer equals the gold one; None: not known.
        shape: equal for solutions that are the same but for layout; of agreeing solutions each
            shape counts once.
        program: None for texts.
        tests: the program's assertions.
        checks: {ran, assertions, equal, hardcoded}, None for what was not tested.
        seconds: run time of the program; None: not run.
        evidence: GOLD, AGREEMENT, or None where it is not verified.
    """

    kind: str
    answer: str | None = None
    equal: bool | None = None
    shape: str = ""
    program: str | None = None
    tests: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(
        default_factory=lambda: dict.fromkeys(("ran", "assertions", "equal", "hardcoded"))
    )
    seconds: float | None = None
    evidence: str | None = None

    @property
    def verified(self) -> bool:
        """Whether there is evidence that it is right."""
        return self.evidence is not None


# Given the run's task.
Reader = Callable[[Any, Sequence[Problem], Sequence[str]], list[Checked]]


def texts(task: Task, problems: Sequence[Problem], given: Sequence[str]) -> list[Checked]:
    """Solutions in words: their stated answers, and whether these equal the gold ones."""
    known = [i for i, problem in enumerate(problems) if problem.answer]
    judged = task.judge(
        [problems[i] for i in known], [given[i] for i in known], np.ones(len(known), bool)
    )
    undecided = dict(zip(known, judged.undecided_B.tolist(), strict=True))
    right = dict(zip(known, judged.right_B.tolist(), strict=True))
    out = []
    for i, (text, seen) in enumerate(zip(given, task.observe(given), strict=True)):
        equal = None if undecided.get(i, True) else bool(right[i])
        checks = {"ran": None, "assertions": None, "equal": equal, "hardcoded": None}
        out.append(
            Checked(
                failures.OK if seen.answer is not None or equal else "no_answer",
                seen.answer,
                equal,
                " ".join(text.split()),
                checks=checks,
            )
        )
    return out


def written_programs(
    task: ProgramTask, problems: Sequence[Problem], given: Sequence[str]
) -> list[Checked]:
    """Programs: what they print in the sandbox, and whether it equals the gold answers."""
    how = task.programs
    found = [programs.extract(text) for text in given]
    out = [Checked(one.failure) for one in found]
    for gold in (True, False):
        rows = [
            i
            for i, one in enumerate(found)
            if one.program is not None and bool(problems[i].answer) == gold
        ]
        checks = check_program_batch(
            [str(found[i].program) for i in rows],
            [problems[i].answer for i in rows] if gold else None,
            questions=[problems[i].question for i in rows],
            # No step waits for these: each may take its limit, and so may its changed copy.
            deadline_s=how.deadline_s + 2 * len(rows) * how.wall_s,
            limits=how.limits(),
            workers=how.workers,
        )
        for i, check in zip(rows, checks, strict=True):
            program = str(found[i].program)
            out[i] = Checked(
                _class(check.status),
                check.printed,
                check.equal,
                programs.normalised(program) or program,
                program,
                _tests(program),
                {
                    "ran": check.ran,
                    "assertions": check.assertions,
                    "equal": check.equal,
                    "hardcoded": check.hardcoded,
                },
                check.seconds,
            )
    return out


# How the answers to a task are read: an entry a task.
READERS: dict[str, Reader] = {"text": texts, "program": written_programs}


def check(
    task_name: str, task: Task, given: Sequence[Written], *, agree: int, assertions: bool
) -> list[Checked]:
    """What became of each answer. Answers of one problem must be given together.

    With a gold answer equality alone counts. Without one the answer that at least `agree` solutions
    of different shape give, more than any other answer; hard-coded ones have no vote. A solution
    that was cut off, or whose answer is written in its program, is never verified.

    Args:
        task_name, task: of the run.
        assertions: programs need an assertion that can fail.
    """
    readable = [i for i, one in enumerate(given) if one.kind == failures.OK]
    read = READERS[task_name](
        task, [given[i].problem for i in readable], [given[i].text for i in readable]
    )
    out = [Checked(one.kind) for one in given]
    for i, one in zip(readable, read, strict=True):
        out[i] = _fit(one, assertions=assertions)
    without: dict[str, list[int]] = {}
    for i, one in enumerate(out):
        if one.kind != failures.OK:
            continue
        if given[i].problem.answer:
            out[i] = _by_gold(one)
        else:
            without.setdefault(given[i].problem.id, []).append(i)
    for places in without.values():
        for i, one in zip(places, _by_agreement([out[i] for i in places], agree), strict=True):
            out[i] = one
    return out


def _fit(one: Checked, *, assertions: bool) -> Checked:
    """An answer, with a class where it cannot be verified whatever it is."""
    if one.kind != failures.OK or one.program is None:
        return one
    if one.equal is not False and one.checks["hardcoded"]:
        return replace(one, kind=HARDCODED)
    if one.equal is not False and assertions and not one.checks["assertions"]:
        return replace(one, kind=NO_ASSERTION)
    return one


def _by_gold(one: Checked) -> Checked:
    if one.equal:
        return replace(one, kind="verified", evidence=GOLD)
    return replace(one, kind="undecided" if one.equal is None else "wrong")


def _by_agreement(found: Sequence[Checked], agree: int) -> list[Checked]:
    """The answers to one problem without a gold one."""
    group_N = selection.groups([one.answer for one in found])
    shapes: dict[int, set[str]] = {}
    for group, one in zip(group_N.tolist(), found, strict=True):
        shapes.setdefault(group, set()).add(one.shape)
    shapes.pop(-1, None)
    counts = {group: len(one) for group, one in shapes.items()}
    most = max(counts.values(), default=0)
    best = [group for group, count in counts.items() if count == most]
    agreed = best[0] if len(best) == 1 and most >= agree else None
    return [
        replace(one, kind="verified", evidence=AGREEMENT)
        if group == agreed
        else replace(one, kind=UNVERIFIED)
        for group, one in zip(group_N.tolist(), found, strict=True)
    ]


def _class(status: str) -> str:
    """The class of a program by how it ended."""
    if status in ("ok", "assertion") or status.startswith(programs.NO_PROGRAM):
        return status
    return "undecided" if status in ("late", "lost") else f"sandbox:{status}"


def _tests(program: str) -> tuple[str, ...]:
    """The assertions of a program in order, as Python writes them."""
    tree = programs.parsed(program)
    nodes = [] if tree is None else [one for one in ast.walk(tree) if isinstance(one, ast.Assert)]
    try:
        return tuple(map(ast.unparse, sorted(nodes, key=lambda one: (one.lineno, one.col_offset))))
    except RecursionError:
        return ()
