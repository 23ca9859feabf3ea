"""What a work directory holds for its report, read from its files; no model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_jax.core.errors import DataError
from distill_jax.core.files import read_json
from distill_jax.report import view as views
from distill_jax.report.view import RunView, StageView
from distill_jax.training import manifest
from distill_jax.training.records import COMPLETIONS_FILE, METRICS_FILE, read_rows

# Of stage solve, in its directory.
SOLVED_FILE = "results.json"

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class StageRecord:
    """A stage that has begun: its starts of run.json; seconds (None until it is complete) and
    figures of done.json."""

    name: str
    starts: Records = ()
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunData:
    """The contents of a run's report.

    Attributes:
        name: of the work directory.
        view: stages and subjects.
        config: the resolved config of the last stage that has begun; {} where none was recorded.
        stages: those that have begun.
        metrics: stage or part of one, e.g. "pretrain/teacher" -> its rows.
        completions: stage -> its sampled completions.
        results: of `runner.evaluate`, by subject.
        tokens: report/tokens.json, or None.
        solved: results.json of the stages that solve with many candidates, by stage.
        others: results, by subject, of the other stages that evaluate, by stage.
    """

    name: str
    view: RunView = RunView()
    config: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[StageRecord] = ()
    metrics: Mapping[str, Records] = field(default_factory=dict)
    completions: Mapping[str, Records] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Any] | None = None
    solved: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    def stage_of(self, part: str) -> StageView:
        """The stage that a key of `metrics` belongs to; one of that name where none is known."""
        name = part.partition("/")[0]
        return next((s for s in self.view.stages if s.name == name), StageView(name, name, name))

    def settings_of(self, stage: str) -> Mapping[str, Any]:
        """The settings of a stage in the config; {} where there are none."""
        found = self.config.get(stage)
        return found if isinstance(found, Mapping) else {}


def read(workdir: Path, view: RunView | None = None) -> RunData:
    """The contents of a run, complete or not; view: None reads it from the directory.

    Raises:
        DataError: no stage has begun in this directory, or a record is damaged.
        CheckpointError: a JSON file of it is damaged.
    """
    workdir = workdir.absolute()
    view = views.load(workdir) if view is None else view
    stages: list[StageRecord] = []
    config: Mapping[str, Any] = {}
    metrics: dict[str, Records] = {}
    completions: dict[str, Records] = {}
    for stage in view.stages:
        directory = workdir / stage.directory
        if not (directory / manifest.RUN_FILE).is_file():
            continue
        record = manifest.read_manifest(directory)
        done = read_json(directory / "done.json") or {}
        starts, figures = record.get("starts", []), done.get("figures", {})
        stages.append(StageRecord(stage.name, starts, done.get("seconds"), figures))
        config = record.get("config", config)
        for path in sorted(directory.rglob(METRICS_FILE)):
            part = (Path(stage.name) / path.parent.relative_to(directory)).as_posix()
            metrics[part] = read_rows(path)
        completions[stage.name] = read_rows(directory / COMPLETIONS_FILE)
    if not stages:
        raise DataError(f"no stage has begun in {workdir}", wanted="the work directory of a run")
    metrics = {part: rows for part, rows in metrics.items() if rows}
    results, tokens = read_results(workdir, view), read_tokens(workdir)
    files = {s.name: workdir / s.directory / SOLVED_FILE for s in view.stages}
    solved = {name: found for name, path in files.items() if (found := read_json(path))}
    others = read_others(workdir, view)
    return RunData(
        workdir.name, view, config, stages, metrics, completions, results, tokens, solved, others
    )


def read_results(workdir: Path, view: RunView) -> dict[str, Any]:
    """Results of the subjects that were evaluated last, in the run's order.

    Other files can belong to weights that no longer exist.
    """
    directory = view.results_directory(workdir)
    found = set(_known(directory, view))
    evaluated = evaluated_last(workdir).get(directory.name)
    if evaluated is not None:  # missing while the stage runs, and after a stop
        found &= set(evaluated)
    return {name: read_json(view.result_file(workdir, name)) for name in view.order(found)}


def read_others(workdir: Path, view: RunView) -> dict[str, Any]:
    """Stage -> results by subject, of the stages that evaluate and are not in `read_results`."""
    shown, out = view.results_directory(workdir), {}
    for stage in view.stages:
        directory = workdir / stage.directory
        if stage.kind == "evaluate" and directory != shown:
            names = _known(directory, view)
            out[stage.name] = {name: read_json(directory / f"{name}.json") for name in names}
    return {stage: results for stage, results in out.items() if results}


def _known(directory: Path, view: RunView) -> list[str]:
    """Subjects with a result in a directory, in the run's order."""
    found = {path.stem for path in directory.glob("*.json")}
    return view.order(name for name in found if name in view.subjects or view.checkpoint(name))


def subjects_file(workdir: Path) -> Path:
    """Names of the subjects that each stage evaluated last, by its directory's name."""
    return workdir / "report" / "subjects.json"


def evaluated_last(workdir: Path) -> dict[str, list[str]]:
    """The contents of `subjects_file`; {} without one."""
    found = read_json(subjects_file(workdir))
    return found if isinstance(found, dict) else {}  # older runs have a list, of one stage


def tokens_file(workdir: Path) -> Path:
    """The tokens of the chosen problems."""
    return workdir / "report" / "tokens.json"


def read_tokens(workdir: Path) -> dict[str, Any] | None:
    """The tokens of the chosen problems, None where none were scored."""
    return read_json(tokens_file(workdir))
