"""Stage kind pretrain: tiny Qwen models from scratch, teacher and student, on worked solutions."""

import functools
from pathlib import Path
from typing import Any

from distill_jax.core import rng
from distill_jax.data.batching import in_share
from distill_jax.data.problem import Problem
from distill_jax.models import hf_io
from distill_jax.report import panels
from distill_jax.run import geometry
from distill_jax.run.models import ROLES, initialiser
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import ModelSettings, TrainSettings
from distill_jax.stages import checks, loop, supervised
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.settings import PretrainSettings
from distill_jax.stages.supervised import ExampleRows
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.step import make_update


def _check(run: Run, stage: Stage[PretrainSettings]) -> None:
    settings = stage.settings
    checks.check_batch(run, stage)
    for role in settings.trained_roles(run.config, stage.name):
        steps = run.models.settings_of(role).steps
        checks.check_schedule(stage.name, settings.optimizer, steps)


def _prepare(run: Run, stage: Stage[PretrainSettings]) -> dict[str, ExampleRows]:
    """The rows of each model that is trained, by its role; equal choices share them."""
    made: dict[Any, ExampleRows] = {}
    out = {}
    roles = stage.settings.trained_roles(run.config, stage.name)
    if not roles:
        run.say(f"{stage.name}: trains nothing: student.path is set, no stage reads a teacher")
    for role in roles:
        s = run.models.settings_of(role)
        choice = (s.level_shares, s.operations, s.answer_only)
        if choice not in made:
            shows = functools.partial(_shows, run.seed(stage), s)
            picks = bool(s.level_shares or s.operations)
            made[choice] = ExampleRows(
                run,
                answer_only=s.answer_only,
                seed=run.seed(stage),
                name=f"{stage.name}, {role}",
                shows=shows if picks else None,
            )
            if picks:
                run.say(f"{stage.name}: the {role} is shown {len(made[choice].examples)} rows")
        out[role] = made[choice]
    return out


def _shows(seed: int, settings: ModelSettings, row: int, problem: Problem) -> bool:
    """Whether a model is shown a row, by (seed, row): a larger share holds a smaller one."""
    signs = {sign for sign in problem.extra["chain"] if sign in "+-"}
    if settings.operations and not signs <= set(settings.operations):
        return False
    assert problem.level is not None  # embedded problems have one
    shares = settings.level_shares
    return not shares or in_share(f"level-share/{seed}/{row}", shares[problem.level - 1])


def _run(
    run: Run, stage: Stage[PretrainSettings], directory: Path, rows: dict[str, ExampleRows]
) -> dict[str, Any]:
    figures = {}
    for role in rows:
        if not (directory / role / "model" / "config.json").exists():
            _train(run, stage, role, directory / role, rows[role])
        figures[role] = {"steps": run.models.settings_of(role).steps}
    return figures


def _train(
    run: Run, stage: Stage[PretrainSettings], role: str, directory: Path, rows: ExampleRows
) -> None:
    settings, steps = stage.settings, run.models.settings_of(role).steps
    # --- model ---
    shape = geometry.to_train(run, role)
    model = run.models.build(role, shape, lora=None)
    key = rng.stream_key(run.key(stage), "pretrain", ROLES.index(role))
    params = initialiser(model, run.mesh)(key)
    # --- state, update ---
    tx = optimizer.make(settings.optimizer, steps)
    trainable, frozen = states.split(params, "full")
    state, shardings = states.create(trainable, tx, run.key(stage), run.mesh)
    loss, totals = losses.sft(model, run.data.vocab)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=settings.accumulate)
    size = settings.batch_size
    step = supervised.examples_step(run, rows, update, frozen, size, steps=steps)
    # --- loop, export ---
    length = TrainSettings(steps=steps, max_skipped=settings.max_skipped)
    state = loop.train(run, f"{stage.name} {role}", directory, length, state, step)
    base = state.trainable["base"]
    hf_io.save_hf(directory / "model", shape, base, tokenizer=run.data.tokenizer)


KIND = register(
    Kind(PretrainSettings, _run, check=_check, prepare=_prepare, panels=panels.SUPERVISED)
)
