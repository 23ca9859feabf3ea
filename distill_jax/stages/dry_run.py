"""What a run would do, stage by stage; writes nothing, and reads weights only for digests."""

from typing import Any

from rich.table import Table

from distill_jax.core.errors import DistillError
from distill_jax.forecast.memory import GB, Job
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import released
from distill_jax.run.geometry import made_geometry
from distill_jax.run.record import refuse_if_changed
from distill_jax.run.run import SETTINGS_FILE, Run, Stage
from distill_jax.run.settings import Shared
from distill_jax.stages import checks
from distill_jax.stages.kinds import kind_of


def show(run: Run) -> None:
    """Prints a row for each stage of config.stages, then why stages are refused."""
    run.remembered.path = None  # digests are kept in memory: another process may hold the directory
    out = Table(title="dry run: what would be done")
    for column in ("stage", "kind", "start", "data", "state"):
        out.add_column(column, overflow="fold")
    out.add_column("GB", justify="right")
    due: list[str] = []
    reasons = []
    for name in run.config.stages:
        stage = run.stage(name)
        state, why = _state(run, stage, due)
        if state in ("due", "to resume"):
            due.append(name)
        if why:
            reasons.append(f"{name}: {why}")
        start = str(getattr(stage.settings, "start", ""))
        data = ", ".join([run.config.data.source, *stage.settings.splits()])
        out.add_row(name, stage.kind, start, data, state, _peak(run, stage))
    run.console.print(out)
    for reason in reasons:
        run.say(reason)


def _state(run: Run, stage: Stage[Any], due: list[str]) -> tuple[str, str]:
    """What would become of a stage, and why where it is refused."""
    try:
        refuse_if_changed(run, stage)
        if run.is_done(stage.name):
            return "complete, does what is new" if kind_of(stage).always else "complete", ""
        checks.check_upstream(run, stage, due)
    except DistillError as error:
        return "refused", str(error)
    begun = (run.workdir / stage.name / SETTINGS_FILE).is_file()
    return "to resume" if begun else "due", ""


def geometry(shared: Shared, role: str, vocab: int) -> QwenConfig:
    """The geometry of a model that need not exist yet: of its path, a released one, or to be made.

    Raises:
        CheckpointError: a path that is neither released nor a local directory.
    """
    settings = shared.teacher if role == "teacher" else shared.student
    if not settings.path:
        return made_geometry(settings, shared, vocab)
    return released(settings.path) or hf_io.load_config(settings.path)


def _peak(run: Run, stage: Stage[Any]) -> str:
    """GB on each device at the fullest moment; "" without a forecast."""
    parts = kind_of(stage).forecast
    if parts is None:
        return ""
    vocab = run.config.tokenizer_size
    try:
        teacher, student = (geometry(run.config, role, vocab) for role in ("teacher", "student"))
    except DistillError:  # the state says what is missing
        return ""
    job = Job(run.config, teacher, student, run.mesh)
    return f"{job.forecast(stage.name, parts(job, stage.settings)).peak / GB:.3g}"
