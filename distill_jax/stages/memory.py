"""Prints the memory forecast of a stage that is about to load its models."""

from typing import Any

import jax

from distill_jax.forecast.memory import Job, device_limit, table, warning
from distill_jax.models import hf_io
from distill_jax.run.models import ROLES
from distill_jax.run.run import Run, Stage
from distill_jax.stages.kinds import kind_of


def show(run: Run, stage: Stage[Any]) -> None:
    """Prints the table, and a warning where the device is too small; reads config.json alone."""
    parts = kind_of(stage).forecast
    if parts is None:
        return
    roles = stage.settings.roles()
    shapes = {role: hf_io.load_config(run.models.path(role)) for role in ROLES if role in roles}
    shapes.setdefault("teacher", shapes["student"])  # not counted: the stage does not load it
    cpu = jax.default_backend() == "cpu"
    job = Job(run.config, shapes["teacher"], shapes["student"], run.mesh, cpu=cpu)
    found, limit = job.forecast(stage.name, parts(job, stage.settings)), device_limit()
    if jax.process_index() == 0:
        run.console.print(table(found, limit))
    if warning(found, limit):
        run.say(warning(found, limit))
