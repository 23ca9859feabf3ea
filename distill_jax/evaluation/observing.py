"""What a task observes of drawn completions, kept with them where it may differ at another call.

Whether a program keeps its time limit depends on the load of the machine. A revision depends on
what was observed, so a resumed run must read it rather than run the programs again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.core import sharding
from distill_jax.rollout.sampler import Rollout
from distill_jax.run.data import Data
from distill_jax.tasks import Observed, Task

COLUMN = "observed"


def column(data: Data) -> Callable[[Sequence[int], Rollout], dict[str, list[Any]]] | None:
    """The column of a store with what the task observes; None where it need not be kept."""
    if data.task.repeatable:
        return None

    def columns(places: Sequence[int], drawn: Rollout) -> dict[str, list[Any]]:
        del places
        texts = [data.text(row) for row in drawn.own]
        return {COLUMN: _agreed(data.task.observe(texts, drawn.ended_B))}

    return columns


def of(
    task: Task, texts: Sequence[str], ended_B: np.ndarray, columns: Mapping[str, list[Any]]
) -> list[Observed]:
    """What the task observes of completions; ended_B, columns: of their draw."""
    if COLUMN not in columns:
        found = task.observe(texts, ended_B)
        return found if task.repeatable else _read(_agreed(found))
    return _read(columns[COLUMN])


def _agreed(found: Sequence[Observed]) -> list[Any]:
    """As JSON-able rows, process 0's on every process."""
    rows: list[Any] = json.loads(sharding.text_of_first_process(json.dumps(found)))
    return rows


def _read(rows: Sequence[Any]) -> list[Observed]:
    return [
        Observed(answer, tuple((kind, detail) for kind, detail in failures))
        for answer, failures in rows
    ]
