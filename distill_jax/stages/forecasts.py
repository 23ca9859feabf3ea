"""The memory of a run's stages: refused before any of them begins, shown before each loads."""

from collections.abc import Sequence
from typing import Any

import jax

from distill_jax.core.settings import references
from distill_jax.forecast import limits
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Forecast
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run import geometry
from distill_jax.run.models import ROLES
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import StageSettings
from distill_jax.stages.kinds import kind_of


def of_stage(run: Run, stage: Stage[Any]) -> Forecast | None:
    """The forecast of a stage; None where its kind has none, or the stage loads no model.

    It reads config.json alone. A model that the run has not made yet is that of the settings.
    """
    parts = kind_of(stage).forecast
    shapes = {role: _shape(run, role) for role in ROLES if role in _roles(stage.settings)}
    if parts is None or not shapes:
        return None
    # A model that the stage does not load is not counted: any shape will do.
    teacher, student = (shapes.get(role) or next(iter(shapes.values())) for role in ROLES)
    paths = stage.settings.further_models().items()
    further = {name: hf_io.load_config(hf_io.model_dir(path)) for name, path in paths}
    job = Job(run.config, teacher, student, run.mesh, further=further)
    return job.forecast(stage.name, parts(job, stage.settings))


def _roles(settings: StageSettings) -> tuple[str, ...]:
    """Whose shapes a forecast needs: a reward model is counted as one of the student's size."""
    scored = any(ref == "reward_model" and value for _, ref, value in references(settings))
    return (*settings.roles(), *(["student"] if scored else []))


def _shape(run: Run, role: str) -> QwenConfig:
    if not run.models.settings_of(role).path and not run.models.made_here(role):
        return geometry.to_train(run, role)
    return hf_io.load_config(run.models.path(role))


def show(run: Run, stage: Stage[Any]) -> None:
    """Prints the forecast of a stage, where there is one."""
    found = of_stage(run, stage)
    if found is not None and jax.process_index() == 0:
        run.console.print(limits.table(found, limits.device_limit()))


def refuse(run: Run, stages: Sequence[Stage[Any]]) -> None:
    """Says which of these stages are forecast to need more memory than the devices have.

    Raises:
        ConfigError: one that cannot run there.
    """
    limit = limits.device_limit()
    if limit is None:
        return
    for stage in stages:
        found = of_stage(run, stage)
        if found is not None:
            limits.refuse(found, limit)
            if warning := limits.warning(found, limit):
                run.say(warning)
