"""A run as plain data: its stages in plan order, and the models that are evaluated.

A stage that makes a student names it; its checkpoints are `STAGE_step_N`. Other subjects are the
teacher, `base` (the student before any stage) and `model` (the one of `evaluate.model`).
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distill_jax.core.errors import CheckpointError
from distill_jax.core.files import read_json, write_json
from distill_jax.evaluation import leading
from distill_jax.report.panels import Panel

VIEW_FILE = "view.json"
TEACHER, BASE, GIVEN = "teacher", "base", "model"
# What stages make, as far as a report asks.
STUDENT, RESULTS = "student", "results"
_CHECKPOINT = re.compile(r"(.+)_step_(\d+)")


@dataclass(frozen=True)
class StageView:
    """A stage of a run.

    Attributes:
        name, kind: of the instance in the plan; e.g. sft or rl.
        directory: of its files, relative to the work directory.
        start: the student it starts from: base, an earlier stage or a directory; "" for none.
        makes: student, results, or another word that no report asks for.
        panels: learning curves that its kind declares; () is `panels.DEFAULT`.
        benchmark: problems that it evaluates or solves instead of the run's own; "" for these.
    """

    name: str
    kind: str
    directory: str
    start: str = ""
    makes: str = ""
    panels: tuple[Panel, ...] = ()
    benchmark: str = ""


@dataclass(frozen=True)
class RunView:
    """The stages of a run, in plan order."""

    stages: tuple[StageView, ...] = ()

    @cached_property
    def students(self) -> tuple[StageView, ...]:
        """The stages that make a student."""
        return tuple(stage for stage in self.stages if stage.makes == STUDENT)

    @cached_property
    def subjects(self) -> dict[str, str]:
        """Name -> label of the models that can be evaluated; results are in evaluate/NAME.json."""
        made = {s.name: f"student after {s.name} (start: {s.start})" for s in self.students}
        return {TEACHER: "teacher", BASE: "student base", **made, GIVEN: "model given"}

    @property
    def last(self) -> str:
        """The student that the run made last; the base student where no stage makes one."""
        return self.students[-1].name if self.students else BASE

    def label(self, name: str) -> str:
        """The label of a subject, checkpoints included; an unknown name is its own label."""
        found = self.checkpoint(name)
        other = name if found is None else f"student at step {found[1]} of {found[0]}"
        return self.subjects.get(name, other)

    def checkpoint(self, name: str) -> tuple[str, int] | None:
        """(stage, step) of a checkpoint's name; None for another name."""
        match = _CHECKPOINT.fullmatch(name)
        if match is None or match[1] not in {stage.name for stage in self.students}:
            return None
        return match[1], int(match[2])

    def order(self, names: Iterable[str]) -> list[str]:
        """Names of subjects in the order of the run, checkpoints before their stage's student."""
        places = {name: place for place, name in enumerate(self.subjects)}

        def key(name: str) -> tuple[float, float, str]:
            stage, step = self.checkpoint(name) or (name, float("inf"))
            return places.get(stage, len(places)), step, name

        return sorted(names, key=key)

    def chain(self, name: str) -> list[StageView]:
        """The stages that led to a student, first to last; [] for a model that no stage made."""
        made = {stage.name: stage for stage in self.students}
        out: list[StageView] = []
        while name in made and made[name] not in out:
            out.insert(0, made[name])
            name = made[name].start
        return out

    def started_from(self, name: str) -> str:
        """The stage that made the student that a stage started from; "" for none."""
        before = self.chain(name)[:-1]
        return before[-1].name if before else ""

    def results_directory(self, workdir: Path) -> Path:
        """Where the results are that a report leads with: see `leading.rank`."""
        return self.results_directories(workdir)[0]

    def results_directories(self, workdir: Path) -> list[Path]:
        """`results_directory`, then those of the other stages that make results."""

        def rank(stage: StageView) -> tuple[bool, bool]:
            return leading.rank(workdir / stage.directory, stage.benchmark)

        made = sorted((stage for stage in self.stages if stage.makes == RESULTS), key=rank)
        return [workdir / one.directory for one in made[::-1]] or [workdir / "evaluate"]

    def result_file(self, workdir: Path, name: str) -> Path:
        """The result of a subject in `results_directory`."""
        return self.results_directory(workdir) / f"{name}.json"


def canonical(name: str, view: RunView) -> str:
    """The subject that a name means: an alias resolved, another name as it is."""
    if name in view.subjects:
        return name
    aliases = {"student": view.last, "student_base": BASE}
    for stage in view.students:  # the last one counts
        aliases |= {"student_after": stage.name, "student_before": stage.start}
        if stage.kind == "distill":
            aliases["student_distilled"] = stage.name
    return aliases.get(name, name)


def changes(view: RunView) -> list[tuple[str, str]]:
    """(student, earlier student) pairs that show what training changed.

    Each student with its start, then the last one with the base: a stage can make the student
    worse, and a later one that only recovers the loss is not progress.
    """
    pairs = [(stage.name, stage.start) for stage in view.students]
    return list(dict.fromkeys([*pairs, *([(view.last, BASE)] if pairs else [])]))


def save(view: RunView, workdir: Path) -> None:
    """Writes WORKDIR/view.json."""
    write_json(workdir / VIEW_FILE, {"stages": [dataclasses.asdict(s) for s in view.stages]})


def load(workdir: Path) -> RunView:
    """The view that `save` wrote; an empty one where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = workdir / VIEW_FILE
    found = read_json(path)
    if found is None:
        return RunView()
    try:
        stages = []
        for fields in found["stages"]:
            panels = tuple(Panel(**panel) for panel in fields["panels"])
            stages.append(StageView(**{**fields, "panels": panels}))
        return RunView(tuple(stages))
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", fix="start the run again") from error
