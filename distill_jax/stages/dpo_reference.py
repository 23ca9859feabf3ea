"""The reference's log-probabilities of pairs."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import filled
from distill_jax.data import padding
from distill_jax.models.qwen import QwenModel
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import reference
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.supervised import MULTIPLE
from distill_jax.training.preference import sequence_logps


@functools.partial(jax.jit, static_argnums=0, static_argnames="vocab")
def _score(model: QwenModel, params: Any, batch: Any, *, vocab: int) -> jax.Array:
    return sequence_logps(model, params, batch, vocab=vocab)


def log_probs(
    run: Run, stage: Stage[DPOSettings], directory: Path, student: Loaded, rows: PairRows
) -> np.ndarray:
    """f32 [N, 2]: log-probabilities of the completions of all pairs under the stage's start.

    See `reference.log_probs` for what is kept and what is refused.
    """
    s, where = stage.settings, sharding.batch_sharding(run.mesh)
    size = s.batch_size // s.accumulate

    lengths_N2 = rows.lengths()
    sizes = lengths_N2[:, 0]
    batches = [np.array(index) for index in reference.batches(sizes, size)]
    chosen = padding.plan(lengths_N2, batches, multiple=MULTIPLE).chosen

    def score(index: list[int]) -> list[np.ndarray]:
        batch = sharding.place(rows.pack(filled(index, size), chosen), where)
        logp_BC = _score(student.model, student.params, batch, vocab=run.data.vocab)
        return list(sharding.fetch(logp_BC)[: len(index)])

    found = reference.log_probs(run, stage, directory, score, sizes, pairs=rows.digest)
    return np.array(found, np.float32)
