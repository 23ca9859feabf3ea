"""Stage kind dpo: LoRA on pairs of a chosen and a rejected completion."""

from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.evaluation.held_out import validation
from distill_jax.forecast.memory import Job
from distill_jax.report import panels
from distill_jax.report.panels import Panel
from distill_jax.run.run import Run, Stage
from distill_jax.stages import (
    batch_shapes,
    checks,
    dpo_guard,
    dpo_reference,
    export_files,
    loop,
    supervised,
)
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.kinds import Kind, register
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.preference import preference
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update

PANELS = (
    *panels.SUPERVISED,
    Panel("margin that the loss raises", {"margins/optimised": "mean of pairs"}),
    Panel(
        "pairs the right way round",
        {"accuracies/optimised": "margin of the loss", "rewards/accuracies": "sums over tokens"},
        share=True,
    ),
    # DPO can widen the margin by lowering the log-probabilities of both.
    Panel("log-probability of the chosen, nats per token", {"logps/chosen_per_token": "mean"}),
    Panel(
        "the same minus the reference's on the same pairs", {"logps/chosen_drift": "nats per token"}
    ),
    Panel(
        "β × log-ratio to the reference",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
    ),
)


def _check(run: Run, stage: Stage[DPOSettings]) -> None:
    checks.check_batch(run, stage)
    checks.check_training(stage)
    checks.check_length(run, stage, stage.settings.max_length)


def _prepare(run: Run, stage: Stage[DPOSettings]) -> PairRows | None:
    """The pairs; None where a stage of this run has to make the rows first."""
    return PairRows(run, stage) if run.is_there(stage.settings.data) else None


def _run(
    run: Run, stage: Stage[DPOSettings], directory: Path, given: PairRows | None
) -> dict[str, Any]:
    s, rows = stage.settings, given or PairRows(run, stage)
    # --- model, reference: the student as it starts ---
    student = run.load_student(s.start)
    if s.uses_reference:
        rows.reference = dpo_reference.log_probs(run, stage, directory, student, rows)
    sampler = run.models.sampler(student.model)
    before = dpo_guard.Start(run, sampler, student, s) if s.guard_margin is not None else None
    # --- state, update ---
    tx = optimizer.make(s.optimizer, s.updates())
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, run.key(stage), run.mesh)
    loss, totals = preference(student.model, s.objective, run.data.vocab)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=s.accumulate)
    update = batch_shapes.compiled_ahead(run, update, rows.chosen)

    def draw(number: int) -> tuple[dict[str, np.ndarray], int]:
        host = rows.batch(number, s.batch_size)
        # As TRL counts them: the prompt with each of its completions.
        return host, int(host["prompt_len_BC"].sum() + host["response_len_BC"].sum())

    step = supervised.step_fn(run, draw, update, frozen, size=s.batch_size, of=len(rows.pairs))
    if s.uses_reference:
        step = dpo_guard.with_drift(step, rows, s.batch_size, s.most_drift)

    def evaluate(state: TrainState) -> dict[str, float]:
        weights = sampler.weights(states.join(state.trainable, frozen), run.config.sampling)
        return validation(run, sampler, weights, s)

    # --- loop ---
    state = loop.train(run, stage.name, directory, s, state, step, evaluate=evaluate)
    figures = dpo_guard.last_drift(directory, s.most_drift) if s.uses_reference else {}
    # --- guard: the student as it started, where this one is worse ---
    if before is not None:
        state, found = before.guarded(state, states.join(state.trainable, frozen))
        figures |= found
    # --- export ---
    counts = export_files.save_student(run, stage, directory, student.model.config, state)
    return {**counts, **rows.figures, **figures}


KIND = register(
    Kind(
        DPOSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=Job.preference,
        panels=PANELS,
    )
)
