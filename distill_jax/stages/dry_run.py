"""What a run would do, stage by stage; nothing is written and no weight is read."""

from typing import Any, NamedTuple

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


class Planned(NamedTuple):
    """What would become of a stage.

    Attributes:
        name: of the stage.
        kind: of the stage.
        start: what it starts from; "" where it starts from nothing.
        data: what it reads.
        state: "complete", "to resume", "due", "complete, does what is new", or "refused".
        why: of a refusal; "" otherwise.
        peak: bytes on each device at its fullest moment; None without a forecast.
    """

    name: str
    kind: str
    start: str
    data: str
    state: str
    why: str
    peak: int | None


def plan(run: Run) -> list[Planned]:
    """Each stage of config.stages, in order."""
    due: list[str] = []
    rows = []
    for name in run.config.stages:
        stage = run.stage(name)
        state, why = _state(run, stage, due)
        if state in ("due", "to resume"):
            due.append(name)
        rows.append(
            Planned(
                name,
                stage.kind,
                str(getattr(stage.settings, "start", "")),
                ", ".join([run.config.data.source, *stage.settings.splits()]),
                state,
                why,
                _peak(run, stage),
            )
        )
    return rows


def _state(run: Run, stage: Stage[Any], due: list[str]) -> tuple[str, str]:
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


def _peak(run: Run, stage: Stage[Any]) -> int | None:
    parts = kind_of(stage).forecast
    if parts is None:
        return None
    vocab = run.config.tokenizer_size
    try:
        teacher, student = (geometry(run.config, role, vocab) for role in ("teacher", "student"))
    except DistillError:  # the state says what is missing
        return None
    job = Job(run.config, teacher, student, run.mesh)
    return job.forecast(stage.name, parts(job, stage.settings)).peak


def show(run: Run) -> None:
    """Prints the plan, then why stages are refused."""
    rows = plan(run)
    run.console.print(table(rows))
    for row in rows:
        if row.why:
            run.say(f"{row.name}: {row.why}")


def table(rows: list[Planned]) -> Table:
    """The plan for people."""
    out = Table(title="dry run: what would be done")
    for column in ("stage", "kind", "start", "data", "state"):
        out.add_column(column, overflow="fold")
    out.add_column("GB", justify="right")
    for row in rows:
        peak = "" if row.peak is None else f"{row.peak / GB:.3g}"
        out.add_row(row.name, row.kind, row.start, row.data, row.state, peak)
    return out
