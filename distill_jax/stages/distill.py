"""Stage kind distill: the student learns the teacher's distributions, token by token."""

import contextlib
from pathlib import Path
from typing import Any

import jax

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.forecast import distillation as memory
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.models import lora
from distill_jax.models.qwen import QwenModel
from distill_jax.report import panels
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import (
    checks,
    curricula,
    distill_rows,
    export_files,
    loop,
    supervised,
    teacher_prompts,
)
from distill_jax.stages import teacher as teachers
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.first_rollout import Guard
from distill_jax.stages.kinds import Kind, register
from distill_jax.training import optimizer
from distill_jax.training import state as states


def _check(run: Run, stage: Stage[DistillSettings]) -> None:
    s, vocab = stage.settings, run.data.vocab
    checks.check_batch(run, stage)
    checks.check_training(stage)
    if s.loss.top_k > vocab:
        raise ConfigError(
            f"{stage.name}.loss.top_k={s.loss.top_k}", wanted=f"at most {vocab}, all tokens"
        )


def _prepare(run: Run, stage: Stage[DistillSettings]) -> supervised.ExampleRows | None:
    """The rows, where they are known before the teacher has written any."""
    s, problems = stage.settings, run.data.problems("train").problems
    count = len(problems)
    teacher_prompts.check(run, stage)
    if s.data == "teacher_samples" and s.teacher_samples.problems > count:
        raise DataError(
            f"{stage.name}.teacher_samples.problems={s.teacher_samples.problems}",
            wanted=f"at most the {count} training problems",
        )
    rows = None
    if s.data == "solutions":
        rows = supervised.ExampleRows(
            run, answer_only=0.0, seed=run.seed(stage), name=stage.name, packing=s.packing
        )
        problems = rows.problems
    curricula.of(run, stage, s.curriculum, problems, batch=s.prompts)
    return rows


def _run(
    run: Run, stage: Stage[DistillSettings], directory: Path, given: supervised.ExampleRows | None
) -> dict[str, Any]:
    s = stage.settings
    # --- student, teacher, rows ---
    student, trainable, frozen = starting_student(run, s)
    start = Loaded(student, states.join(trainable, frozen))
    teacher = teachers.load(run, s.teacher, start, trained=tuple(trainable))
    rows = distill_rows.make(run, stage, directory, teacher, given)
    # --- state ---
    tx = optimizer.make(s.optimizer, s.updates())
    curriculum = curricula.of(run, stage, s.curriculum, rows.problems, batch=s.prompts)
    state, shardings = states.create(
        trainable, tx, run.key(stage), run.mesh, curriculum_state=curriculum.fresh()
    )
    # --- step, loop ---
    guard = Guard(run, stage, directory) if s.data == "student_samples" else None
    step = DistillStep(run, stage, student, frozen, teacher, rows, curriculum, tx, shardings, guard)
    with contextlib.closing(step):
        state = loop.train(run, stage.name, directory, s, state, step, evaluate=step.validate)
    # --- export ---
    counts = export_files.save_student(run, stage, directory, student.config, state)
    return {**counts, **rows.figures}


def starting_student(run: Run, settings: Any) -> tuple[QwenModel, dict[str, Any], dict[str, Any]]:
    """(model, trainable, frozen) of `start` and `trainable`.

    With all parameters trained there is no adapter: that of the start is merged first.
    """
    loaded = run.load_student(settings.start)
    if settings.trainable == "lora":
        return loaded.model, *states.split(loaded.params, "lora")
    scale = run.config.lora.scale
    where = states.param_shardings({"base": loaded.params["base"]}, run.mesh)["base"]
    merge = jax.jit(lambda p: lora.merge(p["base"], p["lora"], scale), out_shardings=where)
    whole = {"base": merge(loaded.params), "lora": {}}
    return loaded.model.replace(lora=None), *states.split(whole, "full")


KIND = register(
    Kind(
        DistillSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=memory.parts,
        programs=Programs.distillation,
        panels=panels.DISTILLATION,
    )
)
