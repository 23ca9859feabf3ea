"""Generated answers on disk, a line a batch: a stopped program resumes from them.

The file holds token ids, so that a later reader (e.g. the comparison of two models' logits) sees
the tokens that were drawn, not a text tokenised again. It is append-only, kept after completion.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from distill_jax.core import sharding
from distill_jax.core.errors import DataError


class Batch(NamedTuple):
    """Completions of some problems, prompt-major.

    Attributes:
        decoding: name of the draw: its sampling settings and key.
        problems: numbers of the problems.
        tokens: token ids of each completion without padding, EOS included.
        ended: whether each ended with EOS.
        columns: further values of each completion by name, JSON-able.
    """

    decoding: str
    problems: tuple[int, ...]
    tokens: list[list[int]]
    ended: list[bool]
    columns: dict[str, list[Any]] = {}  # noqa: RUF012 - never changed in place


class AnswerStore:
    """An append-only JSONL file of answers, found by decoding and problems.

    A line is written when its batch is complete; a torn last line (the process was killed) is
    dropped. Every process of a multi-process run makes one; process 0 alone writes.

    Args:
        path: JSONL: {"made_from"}, then a line a batch.
        made_from: what the answers depend on, JSON-able; with another one the file starts again.
        rendered: a file made of these answers. With it, a store made from something else is
            refused instead, unless neither holds an answer.

    Attributes:
        begun_afresh: there was a file, made from something else.

    Raises:
        DataError: a damaged line, or a refused store.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any], *, rendered: Path | None = None):
        self.path = path
        made_from = json.loads(json.dumps(made_from))
        found, batches, good_bytes = read(path)
        if rendered is not None and (batches or rendered.exists()):
            _refuse_other(path, rendered, found, made_from)
        # No process may write before all have read.
        sharding.barrier(f"answers {path}")
        self.begun_afresh = found is not None and found != made_from
        self._batches = {(b.decoding, b.problems): b for b in batches if not self.begun_afresh}
        if jax.process_index() != 0:
            return
        if found == made_from:
            os.truncate(path, good_bytes)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_line({"made_from": made_from}), encoding="ascii")

    def find(self, decoding: str, problems: Sequence[int]) -> Batch | None:
        """The batch of exactly these problems, if it is complete."""
        return self._batches.get((decoding, tuple(problems)))

    def add(self, batch: Batch) -> None:
        """Appends a complete batch; it is on disk when this returns."""
        self._batches[batch.decoding, batch.problems] = batch
        if jax.process_index() == 0:
            row = {name: value for name, value in batch._asdict().items() if value != {}}
            with self.path.open("a", encoding="ascii") as handle:
                handle.write(_line(row))
                handle.flush()
                os.fsync(handle.fileno())

    def count(self) -> int:
        """Number of completions."""
        return sum(len(batch.tokens) for batch in self._batches.values())

    def responses(self, decoding: str) -> list[list[list[int]]]:
        """Token ids of each problem's completions, in the problems' order."""
        return responses(list(self._batches.values()), decoding)

    def column(self, decoding: str, name: str) -> list[list[Any]]:
        """A column of each problem's completions: see the function."""
        return column(list(self._batches.values()), decoding, name)


def read(path: Path) -> tuple[dict[str, Any] | None, list[Batch], int]:
    """The contents of a store.

    Returns:
        What it was made from (None: no file, or none with a whole line), its batches, and the
        bytes that their lines take.

    Raises:
        DataError: a damaged line other than a torn last one (file, line).
    """
    if not path.exists():
        return None, [], 0
    lines = [x for x in path.read_bytes().splitlines(keepends=True) if x.endswith(b"\n")]
    made_from, batches = None, []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if number == 1:
                made_from = dict(row["made_from"])
            else:
                batches.append(Batch(**{**row, "problems": tuple(row["problems"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} line {number}: {error}", wanted="answers", fix="delete the file"
            ) from error
    return made_from, batches, sum(map(len, lines))


def responses(batches: Sequence[Batch], decoding: str) -> list[list[list[int]]]:
    """Token ids of each problem's completions under one decoding, in the problems' order."""
    of_problem: dict[int, list[list[int]]] = {}
    for batch in batches:
        if batch.decoding == decoding:
            each = len(batch.tokens) // len(batch.problems)
            for place, problem in enumerate(batch.problems):
                of_problem[problem] = batch.tokens[place * each : (place + 1) * each]
    return [of_problem[problem] for problem in sorted(of_problem)]


def column(batches: Sequence[Batch], decoding: str, name: str) -> list[list[Any]]:
    """The values of a column, as `responses` gives the token ids; [] where a batch has none."""
    made = [
        batch._replace(tokens=batch.columns.get(name) or [[] for _ in batch.tokens])
        for batch in batches
    ]
    return responses(made, decoding)


def _refuse_other(
    path: Path, rendered: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, Any]
) -> None:
    """Raises DataError where a store was made from something else, naming each difference."""
    fix = f"name another file, or delete {rendered} and {path}"
    if found is None:
        got = f"{rendered} is there without its {path.name}"
        raise DataError(got, wanted="a file that this command began", fix=fix)
    changed = [
        f"{name} was {json.dumps(found.get(name))}, now {json.dumps(wanted.get(name))}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if changed:
        got = f"{rendered} was made with other settings: {'; '.join(changed)}"
        raise DataError(got, fix=f"{fix} to make it again")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
