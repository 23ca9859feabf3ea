"""Stage prm with head=implicit: a reward model of steps from right and wrong solutions alone.

The student's adapter is trained so that β·Σ log π/π_ref over a solution is the logit of "the
solution is right" (arXiv 2412.01981); the reference is the student as it starts. The same sum over
the tokens of a step is the step's reward, and its sigmoid is read as P(right).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.evaluation import process_bench, step_metrics
from distill_jax.inference import implicit_scores
from distill_jax.models import implicit_io
from distill_jax.models.implicit_io import Implicit
from distill_jax.models.qwen import QwenModel
from distill_jax.run.run import REWARD_MODEL, Run, Stage
from distill_jax.stages import batch_shapes, loop, prm_rows, reference, supervised
from distill_jax.stages.prm_outcomes import OutcomeRows
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.process_losses import outcomes
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update


def run_stage(
    run: Run, stage: Stage[PRMSettings], directory: Path, given: OutcomeRows | None
) -> tuple[TrainState, OutcomeRows, dict[str, float]]:
    """(last state, rows, last figures of the held-out rows); the reward model is written."""
    s, rows = stage.settings, given or OutcomeRows(run, stage)
    # --- model, reference: the student as it starts ---
    student = run.load_student(s.start)
    model, start = student.model, jax.device_get(student.params["lora"])
    rows.reference = _reference(run, stage, directory, model, student.params, rows)
    # --- state, update ---
    tx = optimizer.make(s.optimizer, s.updates())
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, run.key(stage), run.mesh)
    loss, totals = outcomes(model, s.beta, run.data.vocab)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=s.accumulate)
    update = batch_shapes.compiled_ahead(run, update, rows.chosen)
    size, of = s.batch_size, len(rows.train)
    step = supervised.step_fn(run, rows.batch, update, frozen, size=size, of=of)

    def evaluate(state: TrainState) -> dict[str, float]:
        params = states.join(state.trainable, frozen)
        return _figures(run, s, model, params, rows)

    # --- loop, export ---
    state = loop.train(run, stage.name, directory, s, state, step, evaluate=evaluate)
    about = prm_rows.about(
        run, stage, rows, labels="outcome", beta=s.beta,
        reference=run.student_digests(run.student(s.start)),
    )  # fmt: skip
    adapters = Implicit(run.config.lora, state.trainable["lora"], start, about)
    base = str(run.student(s.start).base or run.models.path("student"))
    target, tokenizer = directory / REWARD_MODEL, run.data.tokenizer
    implicit_io.save(target, model.config, adapters, base, tokenizer=tokenizer)
    return state, rows, evaluate(state) if rows.held_out else {}


def _reference(
    run: Run,
    stage: Stage[PRMSettings],
    directory: Path,
    model: QwenModel,
    params: Any,
    rows: OutcomeRows,
) -> list[np.ndarray]:
    """Σ log π_ref of the steps of all rows, kept in STAGE/reference.jsonl."""
    encoded = [one.row for one in rows.everything]
    batch = stage.settings.batch_size // stage.settings.accumulate

    def score(index: list[int]) -> list[np.ndarray]:
        chosen = [encoded[i] for i in index]
        return implicit_scores.step_logps(
            model, params, chosen, vocab=run.data.vocab, mesh=run.mesh, batch=batch
        )

    sizes = np.array([len(one.tokens) for one in encoded])
    found = reference.log_probs(run, stage, directory, score, sizes, rows=rows.digest)
    return [np.array(one, np.float32) for one in found]


def _figures(
    run: Run, s: PRMSettings, model: QwenModel, params: Any, rows: OutcomeRows
) -> dict[str, float]:
    """Figures of the held-out solutions, and of their steps where these are labelled."""
    assert rows.reference is not None
    chosen = rows.held_out[: s.eval_problems]
    encoded, labels = prm_rows.figures_for(chosen)
    begin = len(rows.train)
    ref = rows.reference[begin : begin + len(chosen)]
    policy = implicit_scores.step_logps(
        model, params, encoded, vocab=run.data.vocab, mesh=run.mesh, batch=s.eval_batch
    )
    logits = [s.beta * float(np.sum(a) - np.sum(b)) for a, b in zip(policy, ref, strict=True)]
    found = outcome_figures(logits, [one.outcome == 1.0 for one in chosen])
    if rows.labelled:
        scores = implicit_scores.probabilities(policy, ref, beta=s.beta)
        found |= step_metrics.figures(scores, labels)
    return {f"eval/{name}": value for name, value in found.items()}


def outcome_figures(logits: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    """Loss, accuracy and AUC of the solutions' logits; no AUC for a single class."""
    z, y = np.asarray(logits, float), np.asarray(right, bool)
    found = {
        "outcome_loss": float(np.mean(np.logaddexp(0.0, np.where(y, -z, z)))),
        "outcome_accuracy": float(np.mean((z > 0) == y)),
    }
    auc = process_bench.auc(z.tolist(), y.tolist())
    return found if auc is None else {**found, "outcome_auc": auc}
