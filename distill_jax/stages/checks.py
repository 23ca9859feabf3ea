"""Checks made before any stage starts, cheapest first."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from distill_jax.core import sharding, unread
from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.core.settings import references
from distill_jax.inference import process_scorer
from distill_jax.models import hf_io, peft_io, quantised
from distill_jax.run import geometry
from distill_jax.run.config import concerned
from distill_jax.run.record import recorded, refuse_if_changed
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import TrainSettings
from distill_jax.stages import forecasts
from distill_jax.stages.kinds import kind_of
from distill_jax.training import optimizer
from distill_jax.training.records import extra


def prepare(run: Run, *, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """Checks all stages, then prepares those that are due: {stage: what its kind's `run` needs}.

    unchecked: stages of which the records alone are checked; no model and no data is read for them.

    Raises:
        ConfigError: a directory of an earlier version; settings that differ from those of a stage
            already run here, that cannot go together, or that do not fit models or memory.
        MeshError: a batch that the mesh has no room for.
        MissingExtraError: a package that the records need.
        CheckpointError: models or adapters that are missing, damaged or of another architecture.
        TokenizerMismatchError: teacher and student have different tokenizers.
        DataError: data that cannot be read or used.
    """
    for name in run.config.plan:
        recorded(run.workdir / name)
    for name in concerned(run.config):
        refuse_if_changed(run, run.stage(name))
    stages = [run.stage(name) for name in run.config.stages]
    due = [stage for stage in stages if kind_of(stage).always or not run.is_done(stage.name)]
    names = {stage.name for stage in due}
    due = [stage for stage in due if stage.name not in unchecked]
    _check_extras(run)
    for stage in due:
        if recorded(run.workdir / stage.name) is None:
            for line in unread.said(unread.find(stage.settings, f"{stage.name}.")):
                run.say(line)
        for role in stage.settings.roles():
            check_role(run, role, names)
        check_upstream(run, stage, names)
        kind_of(stage).check(run, stage)
    forecasts.refuse(run, due)
    for split in [split for stage in due for split in stage.settings.splits()]:
        run.data.problems(split)
    return {stage.name: kind_of(stage).prepare(run, stage) for stage in due}


def _check_extras(run: Run) -> None:
    config = run.config
    if config.teacher.quantise != "none":
        quantised.library()
    for setting, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        if getattr(config.records, setting):
            extra(setting, package)


def check_upstream(run: Run, stage: Stage[Any], due: Collection[str]) -> None:
    """Every stage that this one reads is complete, or will be; adapters fit the student.

    Raises:
        CheckpointError, DataError: a product that is missing or does not fit.
    """
    for _, ref, value in references(stage.settings):
        if value and value not in due and ref == "rows":
            run.rows(value)
        if value and value not in due and ref == "reward_model":
            check_reward_model(run, value, due)
        if ref == "student" and value not in due:
            student = run.student(value)
            if student.adapter is None:
                continue
            base = student.base
            shape = hf_io.load_config(base) if base else geometry.of_role(run, "student", due)
            run.models.read_adapter(student.adapter, shape)
            trained = not run.config.student.path and run.config.models_stage in due
            if not base and value not in run.config.plan and not trained:
                check_base(run, student.adapter)


def check_reward_model(run: Run, reference: str, due: Collection[str]) -> None:
    """See `process_scorer.check`; says where its rows are shorter than a prompt and an answer."""
    made = not run.config.student.path and run.config.models_stage in due
    directory, about, _ = process_scorer.check(run, reference, base=not made)
    longest = run.config.data.max_prompt_tokens + run.config.sampling.max_new_tokens
    if about.max_length is not None and about.max_length < longest:
        run.say(
            f"{directory} reads {about.max_length} tokens, prompt and answer may have {longest}: "
            "later steps get no score"
        )


def check_base(run: Run, adapter: Path) -> None:
    """Raises CheckpointError where an adapter names a base model that is not the student's."""
    named = peft_io.base_of(adapter)
    base = run.models.path("student")
    if named is not None and run.digest(named) != run.digest(base):
        raise CheckpointError(
            f"{adapter} was trained on {named}",
            wanted=f"an adapter of {base}",
            fix=f"set student.path={named}",
        )


def check_role(run: Run, role: str, due: Collection[str]) -> None:
    """The model of a role: files, embedding rows, adapter, positions; a due stage may make it."""
    found = geometry.of_role(run, role, due)
    run.models.check_rows(f"{role}.path", found)
    run.models.build(role, found, lora=run.models.lora_of(role))
    geometry.check_positions(run, role, found)


def check_batch(run: Run, stage: Stage[Any]) -> None:
    """The mesh has room for every microbatch of a stage with a `batch_size`.

    Raises:
        ConfigError: not a multiple.
        MeshError: rows that do not split.
    """
    name = f"{stage.name}.batch_size"
    size, accumulate = stage.settings.batch_size, stage.settings.accumulate
    if size % accumulate:
        raise ConfigError(
            f"{name}={size} in accumulate={accumulate} microbatches", wanted="a multiple"
        )
    label = name if accumulate == 1 else f"{name}/{accumulate}"
    sharding.check_batch(label, size // accumulate, run.mesh)


def check_length(run: Run, stage: Stage[Any], longest: int) -> None:
    """Raises ConfigError where a stage's max_length is beyond the student's positions."""
    positions = geometry.of_role(run, "student", run.config.stages).max_position_embeddings
    if longest > positions:
        raise ConfigError(
            f"{stage.name}.max_length={longest}",
            wanted=f"at most the student's {positions} positions",
            fix="lower it",
        )


def check_schedule(name: str, settings: optimizer.OptimizerSettings, updates: int) -> None:
    """Raises ConfigError where the warm-up of `name`.optimizer is longer than the training."""
    try:
        optimizer.learning_rate(settings, updates)
    except ConfigError as error:
        raise ConfigError(
            f"{name}.optimizer.{error.message}", wanted=error.wanted, fix=error.fix
        ) from error


def check_training(stage: Stage[TrainSettings]) -> None:
    """The schedule of a stage that trains a student."""
    check_schedule(stage.name, stage.settings.optimizer, stage.settings.updates())
