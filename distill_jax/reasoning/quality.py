"""Quality of the reasoning in a completion, compared with the gold solution of its problem."""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from distill_jax.reasoning import chains, equations

# "#### 72" states the answer again; it is no step, and a blurted answer must not cover one.
_ANSWER_LINE = re.compile(r"####[^\n]*")


class Reasoning(NamedTuple):
    """Three shares in [0, 1] of one completion; None where there is nothing to judge."""

    step_coverage: float | None
    logical_consistency: float | None
    arithmetic_validity: float | None


def reasoning(gold: str, completion: str) -> Reasoning:
    """All three measures of a completion; gold is the problem's worked solution."""
    return Reasoning(
        step_coverage(gold, completion),
        logical_consistency(completion),
        arithmetic_validity(completion),
    )


def step_coverage(gold: str, completion: str) -> float | None:
    """Which part of the gold solution's step values the completion writes: a multiset recall.

    Order does not count, and a value that the gold solution reaches twice must be written twice.
    A recall rewards length: read it together with the length, never as a reward. See `step_values`
    and `written_values`.

    Returns:
        In [0, 1]; None where the gold solution has no step with a value.
    """
    wanted = Counter(step_values(gold))
    if not wanted:
        return None
    return (wanted & Counter(written_values(completion))).total() / wanted.total()


def step_values(solution: str) -> list[Fraction]:
    """The values of a solution's written steps.

    These are the results of its calculator marks `<<expr=value>>`; without any mark, the numbers
    alone behind an = (`x = 5`, `3 + 4 = 7`; not `y = 2x`). The line `#### …` is no step.
    """
    solution = _ANSWER_LINE.sub("", solution)
    marks = equations.marks(solution)
    if marks:
        found = [equations.mark_value(mark) for mark in marks]
    else:
        found = [chains.value(side) for run in chains.chains(solution) for side in run[1:]]
    return [value for value in found if value is not None]


def written_values(completion: str) -> list[Fraction]:
    """The numbers that a completion writes, alone or as a side of an equation.

    Operands do not count (of `48/2 = 24` only 24), nor does the line `#### …`, nor the numbers of a
    list's items; a mark and the number that repeats it behind it are one value.
    """
    text = _ANSWER_LINE.sub("", completion)
    runs = chains.chains(equations.without_marks(text))
    found = [chains.value(side) for run in runs for side in run]
    return [value for value in found if value is not None]


def logical_consistency(completion: str) -> float | None:
    """Which part of the equations that the completion writes is true, in [0, 1].

    What counts as an equation and as true is said in `equations`; calculator marks are equations,
    too. A completion that writes none is None, never 1.
    """
    return _share(equations.judged(completion) + equations.judged_marks(completion))


def arithmetic_validity(completion: str) -> float | None:
    """Which part of the equations in calculator marks is true, in [0, 1]; None without any."""
    return _share(equations.judged_marks(completion))


def _share(verdicts: Sequence[bool]) -> float | None:
    return sum(verdicts) / len(verdicts) if verdicts else None
