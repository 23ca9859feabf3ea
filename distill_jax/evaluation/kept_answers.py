"""A model's completions as they come, a line a batch: a stopped evaluation goes on from them.

The file holds token ids, so that whatever looks at the answers later (the comparison of two
models' logits) sees the tokens that were drawn and not a text tokenised again. It stays when the
evaluation is complete.
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
    """Completions of some problems, prompt-major: token ids without padding, and which ended."""

    decoding: str
    problems: tuple[int, ...]
    tokens: list[list[int]]
    ended: list[bool]


class KeptAnswers:
    """Completions on disk, found again by decoding and problems.

    A line is written when its batch is complete; a torn last line (the process was killed) is
    dropped. Every process of a multi-process run makes one; process 0 alone writes.

    Args:
        path: JSONL: {"made_from"}, then a line a batch.
        made_from: whatever the completions depend on, JSON-able. A file made from something else
            is begun afresh.

    Attributes:
        begun_afresh: there was a file, made from something else.

    Raises:
        DataError: a line that is not ours.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any]):
        self.path = path
        made_from = json.loads(json.dumps(made_from))
        found, batches, good_bytes = read(path)
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
            path.write_text(_line({"made_from": made_from}), encoding="utf-8")

    def find(self, decoding: str, problems: Sequence[int]) -> Batch | None:
        """The batch of exactly these problems, if it is complete."""
        return self._batches.get((decoding, tuple(problems)))

    def add(self, batch: Batch) -> None:
        """Appends a complete batch."""
        self._batches[batch.decoding, batch.problems] = batch
        if jax.process_index() == 0:
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(_line(batch._asdict()))

    def count(self) -> int:
        """Completions that are here."""
        return sum(len(batch.tokens) for batch in self._batches.values())

    def responses(self, decoding: str) -> list[list[list[int]]]:
        """Token ids of each problem's completions, in the problems' order."""
        return responses(list(self._batches.values()), decoding)


def answers_path(directory: Path, name: str) -> Path:
    """Where a subject's completions are kept as token ids."""
    return directory / f"{name}.checkpoint.jsonl"


def read(path: Path) -> tuple[dict[str, Any] | None, list[Batch], int]:
    """What such a file holds.

    Returns:
        What it was made from (None: no file, or none with a whole line), its batches, and the
        bytes that their lines take.

    Raises:
        DataError: a line, other than a torn last one, that is not ours (file, line).
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
                f"{path} line {number}: {error}", wanted="completions", fix="delete the file"
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


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
