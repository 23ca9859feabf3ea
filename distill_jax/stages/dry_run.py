"""What a run would do, stage by stage; writes nothing, and reads weights only for digests."""

from typing import Any

from rich.table import Table

from distill_jax.core import settings
from distill_jax.core.errors import DistillError
from distill_jax.core.sharding import AnyMesh
from distill_jax.data.sources import PUBLISHED, SPLITS
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import GB
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import released
from distill_jax.run.config import RunConfig, concerned
from distill_jax.run.geometry import made_geometry
from distill_jax.run.run import SETTINGS_FILE, Run, Stage
from distill_jax.run.settings import ModelSettings
from distill_jax.run.workdir import check_workdir
from distill_jax.stages import checks
from distill_jax.stages.kinds import kind_of


def show(run: Run) -> None:
    """Prints a row for each stage that is concerned, then checks all that a run checks first.

    Raises:
        DistillError: what the run would raise before any stage begins.
    """
    check_workdir(run.workdir, make=False)
    # Another process may hold the directory: digests and tokenizer are kept in memory.
    run.remembered.path, run.data.keep = None, False
    out = Table(title="dry run: what would be done")
    for column in ("stage", "kind", "start", "data", "state"):
        out.add_column(column, overflow="fold")
    out.add_column("GB", justify="right")
    for name in concerned(run.config):
        stage = run.stage(name)
        start = str(getattr(stage.settings, "start", ""))
        out.add_row(
            name, stage.kind, start, _data(run, stage), _state(run, stage), _peak(run, stage)
        )
    run.console.print(out)
    stages = [run.stage(name) for name in run.config.stages]
    due = [stage for stage in stages if kind_of(stage).always or not run.is_done(stage.name)]
    away = {stage.name: _of_hub(run, stage) for stage in due}
    unread = [name for name in away if away[name]]
    if unread:
        sources = ", ".join(dict.fromkeys(one for found in away.values() for one in found))
        run.say(f"not read: {sources} of the hub; so not checked: {', '.join(unread)}")
    checks.prepare(run, unchecked=unread)


def _data(run: Run, stage: Stage[Any]) -> str:
    """The splits that a stage reads, behind their source; a benchmark has its own."""
    splits = stage.settings.splits()
    own = not splits or any(one in SPLITS for one in splits)
    return ", ".join([*[run.config.data.source] * own, *splits])


def _of_hub(run: Run, stage: Stage[Any]) -> list[str]:
    """The data and models of the hub that the checks of a stage would read."""
    config, s = run.config, stage.settings
    data = [one for one in (config.data.source, *s.splits()) if one in PUBLISHED]
    references = settings.references(s)
    models = [value for _, ref, value in references if ref in ("student", "reward_model")]
    models += [*s.further_models().values(), getattr(s, "model", "")]
    models += [config.teacher.path, config.student.path]
    return data + [one for one in models if one and hf_io.is_hub_id(one)]


def _state(run: Run, stage: Stage[Any]) -> str:
    if run.is_done(stage.name):
        return "complete, does what is new" if kind_of(stage).always else "complete"
    if stage.name not in run.config.stages:
        return "missing"
    begun = (run.workdir / stage.name / SETTINGS_FILE).is_file()
    return "to resume" if begun else "due"


def job(config: RunConfig, mesh: AnyMesh, platform: str | None = None) -> Job:
    """For forecasts. A model need not exist yet: it is of its path, a released one, or to be made.

    platform: as `Job` takes it.

    Raises:
        CheckpointError: a path that is neither released nor a local directory.
    """

    def shape(model: ModelSettings) -> QwenConfig:
        if not model.path:
            return made_geometry(model, config, config.tokenizer_size)
        return released(model.path) or hf_io.load_config(model.path)

    return Job(config, shape(config.teacher), shape(config.student), mesh, platform=platform)


def _peak(run: Run, stage: Stage[Any]) -> str:
    """GB on each device at the fullest moment; "" without a forecast."""
    parts = kind_of(stage).forecast
    if parts is None:
        return ""
    try:
        made = job(run.config, run.mesh)
    except DistillError:  # the checks say what is missing
        return ""
    return f"{made.forecast(stage.name, parts(made, stage.settings)).peak / GB:.3g}"
