"""Stage kind sft: LoRA on worked and answer-only solutions."""

from pathlib import Path
from typing import Any

from distill_jax.core import sharding
from distill_jax.evaluation import validation
from distill_jax.forecast.memory import Job
from distill_jax.report import panels
from distill_jax.run.run import Run, Stage
from distill_jax.stages import checks, export_files, loop, supervised
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.settings import SFTSettings
from distill_jax.stages.supervised import Rows
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update


def _check(run: Run, stage: Stage[SFTSettings]) -> None:
    s = stage.settings
    checks.check_batch(run, f"{stage.name}.batch_size", s.batch_size, s.accumulate)
    checks.check_training(stage)


def _prepare(run: Run, stage: Stage[SFTSettings]) -> Rows:
    s = stage.settings
    if s.eval_every:
        run.data.problems("validation")
    return Rows(run, answer_only=s.answer_only, seed=run.seed(stage))


def _run(run: Run, stage: Stage[SFTSettings], directory: Path, rows: Rows) -> dict[str, Any]:
    """Trains the student's adapter; exports `adapter/` in PEFT's form."""
    s = stage.settings
    # --- model ---
    student, base = run.load_student(s.start), run.student(s.start).base
    sampler = run.models.sampler(student.model)
    # --- state, update ---
    tx = optimizer.make(s.optimizer, s.updates())
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, run.key(stage), run.mesh)
    loss, totals = losses.sft(student.model, run.data.vocab)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=s.accumulate)
    step = supervised.step_fn(run, rows, update, frozen, s.batch_size)

    def evaluate(state: TrainState) -> dict[str, float]:
        weights = sampler.weights(states.join(state.trainable, frozen), run.config.sampling)
        return validation.greedy(run, sampler, weights, s)

    # --- loop ---
    state = loop.train(run, stage.name, directory, s, state, step, evaluate=evaluate)
    # --- export ---
    adapter = directory / "adapter"
    run.models.save_adapter(student.model.config, state.trainable["lora"], adapter, base)
    found = sharding.fetch({"steps": state.step, "skipped_updates": state.skipped})
    counts = {name: int(x) for name, x in found.items()}
    export_files.write_model_info(run, stage, adapter, counts["steps"])
    return {**counts, "bare_answers": rows.bare_answers}


KIND = register(
    Kind(
        SFTSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=Job.supervised,
        panels=panels.SUPERVISED,
    )
)
