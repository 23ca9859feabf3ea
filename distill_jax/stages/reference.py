"""Log-probabilities under a stage's start: computed once, kept on disk with what they depend on."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import DataError
from distill_jax.inference import generate
from distill_jax.run.run import Run, Stage
from distill_jax.training.progress import Progress

REFERENCE_FILE = "reference.jsonl"
# Row numbers -> log-probabilities of each of these rows.
Score = Callable[[list[int]], Sequence[np.ndarray]]


class Store:
    """An append-only JSONL file: {"made_from"}, then a line for each scored batch of rows.

    A torn last line is dropped. Every process makes one; process 0 writes.

    Args:
        path: of the file.
        made_from: what the scores depend on, JSON-able.

    Attributes:
        logp: row -> its log-probabilities.

    Raises:
        DataError: a damaged line, or a file that was made from something else.
    """

    def __init__(self, path: Path, made_from: dict[str, Any]):
        self.path, self.logp = path, dict[int, list[float]]()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        for number, line in enumerate(whole, 1):
            self._take(number, line, made_from)
        # No process may write before all have read.
        sharding.barrier(f"reference {path}")
        if jax.process_index() == 0:
            if lines:
                os.truncate(path, sum(map(len, whole)))
            if not whole:
                self._append({"made_from": made_from})

    def _take(self, number: int, line: bytes, made_from: dict[str, Any]) -> None:
        fix = f"delete {self.path}: the scores are computed again"
        try:
            row = json.loads(line)
            if number > 1:
                self.logp |= dict(zip(row["rows"], row["logp"], strict=True))
                return
            found = dict(row["made_from"])
        except (ValueError, TypeError, KeyError) as error:
            got = f"{self.path} line {number}: {error}"
            raise DataError(got, wanted="log-probabilities of rows", fix=fix) from error
        changed = [n for n in sorted({*found, *made_from}) if found.get(n) != made_from.get(n)]
        if changed:
            got = f"{self.path} was made from another {', '.join(changed)}"
            raise DataError(got, wanted="the reference and rows of this stage", fix=fix)

    def add(self, rows: list[int], logp: Sequence[np.ndarray]) -> None:
        """Appends a scored batch; it is on disk when this returns."""
        # float32 as float64: JSON gives back the same bits
        listed = [one.tolist() for one in logp]
        self.logp |= dict(zip(rows, listed, strict=True))
        if jax.process_index() == 0:
            self._append({"rows": rows, "logp": listed})

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="ascii") as handle:
            handle.write(json.dumps(row, separators=(",", ":")) + "\n")
            handle.flush()
            os.fsync(handle.fileno())


def batches(sizes: np.ndarray, size: int) -> list[list[int]]:
    """Numbers of the rows of each batch that is scored: rows of similar length share one.

    sizes: tokens of each row; size: rows of a batch, of the last one perhaps fewer.
    """
    order = np.argsort(sizes, kind="stable").tolist()
    return [order[start : start + size] for start in range(0, len(order), size)]


def log_probs(
    run: Run,
    stage: Stage[Any],
    directory: Path,
    score: Score,
    sizes: np.ndarray,
    **made_from: str,
) -> list[list[float]]:
    """Log-probabilities of all rows under the stage's start, as `score` gives them.

    Rows that STAGE/reference.jsonl holds are not computed again. Batches are the same at every
    start, so a resumed stage has the bits of an uninterrupted one.

    Args:
        run, stage, directory: settings and place.
        score: of a batch's rows.
        sizes: tokens of each row; see `batches`.
        made_from: digests of what the scores depend on besides weights and dtypes.

    Raises:
        DataError: the file was made from something else, or a log-probability is not finite.
        Interrupted: asked to stop; what is computed is kept.
    """
    s, how = stage.settings, run.config.student
    made = {
        **run.student_digests(run.student(s.start)),
        **made_from,
        "dtypes": f"{how.param_dtype} {how.compute_dtype}",
    }
    store, total = Store(directory / REFERENCE_FILE, made), len(sizes)
    size = s.batch_size // s.accumulate  # what an update has room for
    after, done = f"the reference's scores of {total} rows are kept", len(store.logp)
    with Progress("reference", total, start=done, unit="rows", console=run.console) as progress:
        tick = generate.stopping(run, progress, done, f"{stage.name} was asked to stop;", after)
        for index in batches(sizes, size):
            if all(i in store.logp for i in index):
                continue
            logp = score(index)
            if not all(np.isfinite(one).all() for one in logp):
                raise DataError(
                    f"{stage.name}: a log-probability under the reference is not finite",
                    fix="check the weights of the start, or set student.compute_dtype=float32",
                )
            store.add(index, logp)
            tick(len(index))
    return [store.logp[i] for i in range(total)]
