"""The reference's log-probabilities of pairs: computed once, kept on disk, refused elsewhere."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import filled
from distill_jax.core.errors import DataError
from distill_jax.inference import generate
from distill_jax.models.qwen import QwenModel
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages.dpo_rows import Rows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.training.preference import sequence_logps
from distill_jax.training.progress import Progress

REFERENCE_FILE = "reference.jsonl"


class Store:
    """An append-only JSONL file: {"made_from"}, then a line for each scored batch of pairs.

    A torn last line is dropped. Every process makes one; process 0 writes.

    Args:
        path: of the file.
        made_from: what the scores depend on, JSON-able.

    Attributes:
        logp: pair -> its two log-probabilities.

    Raises:
        DataError: a damaged line, or a file that was made from something else.
    """

    def __init__(self, path: Path, made_from: dict[str, Any]):
        self.path, self.logp = path, dict[int, tuple[float, float]]()
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
                sides = (row["chosen"], row["rejected"])
                self.logp |= dict(zip(row["pairs"], zip(*sides, strict=True), strict=True))
                return
            found = dict(row["made_from"])
        except (ValueError, TypeError, KeyError) as error:
            got = f"{self.path} line {number}: {error}"
            raise DataError(got, wanted="log-probabilities of pairs", fix=fix) from error
        changed = [n for n in sorted({*found, *made_from}) if found.get(n) != made_from.get(n)]
        if changed:
            got = f"{self.path} was made from another {', '.join(changed)}"
            raise DataError(got, wanted="the reference and pairs of this stage", fix=fix)

    def add(self, pairs: list[int], logp_NC: np.ndarray) -> None:
        """Appends a scored batch; it is on disk when this returns."""
        chosen, rejected = logp_NC.T.tolist()  # float32 as float64: JSON gives back the same bits
        self.logp |= dict(zip(pairs, zip(chosen, rejected, strict=True), strict=True))
        if jax.process_index() == 0:
            self._append({"pairs": pairs, "chosen": chosen, "rejected": rejected})

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="ascii") as handle:
            handle.write(json.dumps(row, separators=(",", ":")) + "\n")
            handle.flush()
            os.fsync(handle.fileno())


@functools.partial(jax.jit, static_argnums=0, static_argnames="vocab")
def _score(model: QwenModel, params: Any, batch: Any, *, vocab: int) -> jax.Array:
    return sequence_logps(model, params, batch, vocab=vocab)


def log_probs(
    run: Run, stage: Stage[DPOSettings], directory: Path, student: Loaded, rows: Rows
) -> np.ndarray:
    """f32 [N, 2]: log-probabilities of the completions of all pairs under the stage's start.

    Those that STAGE/reference.jsonl has are not computed again; its batches are the same at every
    start, so a resumed stage has the bits of an uninterrupted one.

    Raises:
        DataError: the file was made from something else, or a log-probability is not finite.
        Interrupted: asked to stop; what is computed is kept.
    """
    s, how = stage.settings, run.config.student
    made_from = {
        **run.student_digests(run.student(s.start)),
        "pairs": rows.digest,
        "dtypes": f"{how.param_dtype} {how.compute_dtype}",
    }
    store, total = Store(directory / REFERENCE_FILE, made_from), len(rows.pairs)
    size = s.batch_size // s.accumulate  # what an update has room for
    order, where = np.argsort(rows.sizes(), kind="stable"), sharding.batch_sharding(run.mesh)
    title, after = "reference", f"the reference's scores of {total} pairs are kept"
    done = len(store.logp)
    with Progress(title, total, start=done, unit="pairs", console=run.console) as progress:
        tick = generate.stopping(run, progress, done, f"{stage.name} was asked to stop;", after)
        for start in range(0, total, size):
            index = order[start : start + size]
            if all(i in store.logp for i in index.tolist()):
                continue
            batch = sharding.place(rows.pack(filled(index, size)), where)
            logp_BC = sharding.fetch(
                _score(student.model, student.params, batch, vocab=run.data.vocab)
            )[: len(index)]
            if not np.isfinite(logp_BC).all():
                raise DataError(
                    f"{stage.name}: a log-probability under the reference is not finite",
                    fix="check the weights of the start, or set student.compute_dtype=float32",
                )
            store.add(index.tolist(), logp_BC)
            tick(len(index))
    return np.array([store.logp[i] for i in range(total)], np.float32)
