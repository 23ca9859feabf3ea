"""Rows of stage traces: solutions that a model wrote, as token ids, with their verdicts."""

import dataclasses
from pathlib import Path

from distill_jax.core.errors import DataError
from distill_jax.data.problem import Problem
from distill_jax.data.rows import read_rows


@dataclasses.dataclass(frozen=True)
class Trace:
    """A solution; tokens are those that were drawn, EOS included."""

    id: str
    question: str
    answer: str
    completion: str
    tokens: list[int]
    ended: bool
    right: bool
    undecided: bool
    sample: int

    @property
    def problem(self) -> Problem:
        """The problem that it solves."""
        return Problem(self.id, self.question, "", self.answer)


def read(path: Path) -> list[Trace]:
    """The rows of a file, further columns ignored.

    Raises:
        DataError: a column is missing or of another type (file, line).
    """
    kinds = {one.name: one.type for one in dataclasses.fields(Trace)} | {"tokens": list}
    out = []
    for where, row in read_rows(path):
        wrong = [name for name, kind in kinds.items() if type(row.get(name)) is not kind]
        if wrong or any(type(index) is not int for index in row["tokens"]):
            name = wrong[0] if wrong else "tokens"
            raise DataError(
                f"{where}: field {name} is {row.get(name)!r:.60}", wanted="a row of stage traces"
            )
        out.append(Trace(**{name: row[name] for name in kinds}))
    return out
