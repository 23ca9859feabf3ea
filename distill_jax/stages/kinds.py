"""Kind: what a run has to know of a kind of stage besides its settings; KINDS, the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_jax.core.errors import ConfigError
from distill_jax.forecast.compiled_programs import Planned, Programs
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.report.panels import Panel
from distill_jax.report.view import RunView, StageView
from distill_jax.run.run import SETTINGS_FILE, Run, Stage
from distill_jax.run.settings import StageSettings


def _nothing(run: Run, stage: Stage[Any]) -> None:
    del run, stage


@dataclass(frozen=True)
class Kind:
    """A kind of stage.

    Attributes:
        settings: class of its settings, which says what it makes and what it reads.
        run: (run, stage, directory, prepared) -> figures for done.json. Called again after an
            interruption, it resumes to the same bits.
        check: (run, stage): checks settings, mesh and model files, before any data is read.
        prepare: (run, stage) -> what `run` is given. Called before any stage begins: it reads the
            data, checks whatever can be known before work, and loads no model.
        forecast: (job, settings) -> parts of the memory on one device; None: no forecast.
        programs: (programs, settings) -> what its training compiles, for `launch.compile_check`;
            None: not covered.
        panels: learning curves in the report; (): `report.panels.DEFAULT`.
        always: it is started again when complete, and does only what is new.
    """

    settings: type[StageSettings]
    run: Callable[[Run, Stage[Any], Path, Any], dict[str, Any]]
    check: Callable[[Run, Stage[Any]], None] = _nothing
    prepare: Callable[[Run, Stage[Any]], Any] = _nothing
    forecast: Callable[[Job, Any], list[Part]] | None = None
    programs: Callable[[Programs, Any], Planned] | None = None
    panels: tuple[Panel, ...] = ()
    always: bool = False

    @property
    def name(self) -> str:
        """The word in `config.STAGE.kind`."""
        return self.settings.kind


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Adds a kind, so that plans can hold stages of it."""
    KINDS[kind.name] = kind
    return kind


def kind_of(stage: Stage[Any]) -> Kind:
    """The kind of a stage.

    Raises:
        ConfigError: its settings are known and its code is not registered.
    """
    if stage.kind not in KINDS:
        raise ConfigError(
            f"stage {stage.name} is of kind {stage.kind!r}",
            wanted=f"one of {', '.join(KINDS)}",
            fix="import the module that registers the kind in the config file",
        )
    return KINDS[stage.kind]


def view_of(run: Run, last: str = "") -> RunView:
    """The report's view: stages that this start runs or that were begun here, `last` the last."""
    names = [
        name
        for name in run.config.order
        if name in run.config.stages or (run.workdir / name / SETTINGS_FILE).is_file()
    ]
    names.sort(key=lambda name: name == last)
    return RunView(tuple(_stage_view(run, run.stage(name)) for name in names))


def _stage_view(run: Run, stage: Stage[Any]) -> StageView:
    name, makes = stage.name, stage.settings.makes
    start = run.start_of(name) if makes == "student" else ""
    benchmark = getattr(stage.settings, "benchmark", "")
    return StageView(name, stage.kind, name, start, makes, kind_of(stage).panels, benchmark)
