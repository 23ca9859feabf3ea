"""What a work directory holds for the HTML report, read from its files; no model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_jax.core.errors import DataError
from distill_jax.core.files import read_json
from distill_jax.core.settings import setting
from distill_jax.evaluation.report_measures import CHECKPOINT, NAMES
from distill_jax.training import manifest
from distill_jax.training.records import COMPLETIONS_FILE, METRICS_FILE, read_rows

Rows = Sequence[Mapping[str, Any]]

# In the order in which a run has them; others that a work directory holds come after these.
STAGES = ("pretrain", "sft", "distill", "rl", "evaluate")


@dataclass(frozen=True)
class ReportSettings:
    """The HTML report at the end of stage evaluate."""

    problems: int = setting(
        9, "Problems shown with the reward of each token (loads the teacher); 0: none.", low=0
    )


@dataclass(frozen=True)
class Stage:
    """A stage as its directory tells of it.

    Attributes:
        name: its directory.
        starts: of run.json: time, command, versions, devices, commit of each start.
        seconds: of done.json, None until it is complete.
        figures: of done.json.
    """

    name: str
    starts: Sequence[Mapping[str, Any]] = ()
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunData:
    """All that the page shows of a run.

    Attributes:
        name: of the work directory.
        config: the resolved config of the stage that began last; {} where none tells.
        stages: those that have begun.
        metrics: directory of a stage or of a part of it, e.g. "pretrain/teacher" -> its rows.
        completions: rows of stage rl.
        results: of `runner.evaluate`, by subject.
        tokens: what report/tokens.json holds, or None.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[Stage] = ()
    metrics: Mapping[str, Rows] = field(default_factory=dict)
    completions: Rows = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Any] | None = None


def read(workdir: Path) -> RunData:
    """All of a run, complete or not.

    Raises:
        DataError: no stage has begun in this directory, or a record is damaged.
        CheckpointError: a JSON file of it is damaged.
    """
    workdir = workdir.absolute()
    stages: list[Stage] = []
    config: Mapping[str, Any] = {}
    for name in _stage_names(workdir):
        told = manifest.read_manifest(workdir / name)
        done = read_json(workdir / name / "done.json") or {}
        starts, figures = told.get("starts", []), done.get("figures", {})
        stages.append(Stage(name, starts, done.get("seconds"), figures))
        config = told.get("config", config)
    if not stages:
        raise DataError(f"no stage has begun in {workdir}", wanted="the work directory of a run")
    metrics = {}
    for stage in stages:
        for path in sorted((workdir / stage.name).rglob(METRICS_FILE)):
            metrics[str(path.parent.relative_to(workdir))] = read_rows(path)
    return RunData(
        workdir.name,
        config,
        stages,
        {name: rows for name, rows in metrics.items() if rows},
        read_rows(workdir / "rl" / COMPLETIONS_FILE),
        read_results(workdir),
        read_tokens(workdir),
    )


def _stage_names(workdir: Path) -> list[str]:
    found = {path.parent.name for path in workdir.glob(f"*/{manifest.RUN_FILE}")}
    return [*(s for s in STAGES if s in found), *sorted(found - set(STAGES))]


def read_results(workdir: Path) -> dict[str, Any]:
    """What stage evaluate wrote of each subject that it looked at last, in the order in which a
    run has them: other files may be of weights that are no more."""
    found = {path.stem for path in (workdir / "evaluate").glob("*.json")}
    looked_at = read_json(subjects_file(workdir))
    if looked_at is not None:  # a stage that was stopped, or is of an earlier version, has none
        found &= set(looked_at)
    steps = [name for name in found if name.startswith(CHECKPOINT)]
    steps.sort(key=lambda name: int(name.removeprefix(CHECKPOINT)))
    names = [name for name in NAMES if name in found]
    at = names.index("student_after") if "student_after" in names else len(names)
    ordered = [*names[:at], *steps, *names[at:]]
    return {name: read_json(workdir / "evaluate" / f"{name}.json") for name in ordered}


def subjects_file(workdir: Path) -> Path:
    """Names of the subjects that stage evaluate looked at last."""
    return workdir / "report" / "subjects.json"


def tokens_file(workdir: Path) -> Path:
    """Where the tokens of the chosen problems lie."""
    return workdir / "report" / "tokens.json"


def read_tokens(workdir: Path) -> dict[str, Any] | None:
    """The tokens of the chosen problems, None where nobody scored any."""
    return read_json(tokens_file(workdir))
