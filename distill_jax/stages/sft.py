"""Stage kind sft: LoRA on worked and answer-only solutions."""

from pathlib import Path
from typing import Any

import jax

from distill_jax.evaluation.held_out import validation
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.forecast.memory import Job
from distill_jax.report import panels
from distill_jax.run.models import Loaded
from distill_jax.run.record import recorded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import checks, export_files, loop, supervised
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.settings import SFTSettings
from distill_jax.stages.supervised import ExampleRows, Examples
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update


def _check(run: Run, stage: Stage[SFTSettings]) -> None:
    checks.check_batch(run, stage)
    checks.check_training(stage)
    if recorded(run.workdir / stage.name) is None:
        stage.settings.check_best(run.config, stage.name)


def _rows(run: Run, stage: Stage[SFTSettings]) -> ExampleRows:
    s = stage.settings
    path = run.rows(s.data) if s.data else None
    return ExampleRows(
        run,
        answer_only=s.answer_only,
        seed=run.seed(stage),
        name=stage.name,
        path=path,
        only_right=s.only_right,
        window=s.sort_window,
        packing=s.packing,
    )


def _prepare(run: Run, stage: Stage[SFTSettings]) -> ExampleRows | None:
    """The rows; None where a stage of this run has to make them first."""
    return _rows(run, stage) if run.is_there(stage.settings.data) else None


def train(
    run: Run,
    name: str,
    directory: Path,
    s: Any,
    student: Loaded,
    rows: Examples,
    key: jax.Array,
    *,
    packing: int = 0,
) -> TrainState:
    """Trains a student's adapter on rows; the last state. A complete directory's is read.

    name: for the progress bar and the records. s: TrainSettings with a batch_size. key: of dropout.
    packing: tokens of a packed row; 0: rows are not packed.
    """
    sampler = run.models.sampler(student.model)
    # --- state, update ---
    tx = optimizer.make(s.optimizer, s.updates())
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, key, run.mesh)
    loss, totals = losses.sft(student.model, run.data.vocab)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=s.accumulate)
    how = {"steps": s.steps, "packing": packing, "accumulate": s.accumulate}
    step = supervised.examples_step(run, rows, update, frozen, s.batch_size, **how)

    def evaluate(state: TrainState) -> dict[str, float]:
        weights = sampler.weights(states.join(state.trainable, frozen), run.config.sampling)
        return validation(run, sampler, weights, s)

    # --- loop ---
    return loop.train(run, name, directory, s, state, step, evaluate=evaluate)


def _run(
    run: Run, stage: Stage[SFTSettings], directory: Path, given: ExampleRows | None
) -> dict[str, Any]:
    rows, s = given or _rows(run, stage), stage.settings
    student = run.load_student(s.start)
    key = run.key(stage)
    state = train(run, stage.name, directory, s, student, rows, key, packing=s.packing)
    counts = export_files.save_student(run, stage, directory, student.model.config, state)
    return {**counts, "bare_answers": rows.bare_answers}


KIND = register(
    Kind(
        SFTSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=Job.supervised,
        programs=Programs.supervised,
        panels=panels.SUPERVISED,
    )
)
