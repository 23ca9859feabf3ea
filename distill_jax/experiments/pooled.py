"""Measures of runs with process reward models or solvers, pooled over seeds.

A measure is {"section", "name", "mean", "low", "high", "same_problems"}: a figure of one seed with
its 95% interval over problems, None where there is none; and whether other seeds have some of these
problems, too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.files import CONFIG_FILE, read_json
from distill_jax.data.sources import SPLITS
from distill_jax.evaluation import intervals
from distill_jax.experiments import comparison
from distill_jax.experiments.comparison import Interval
from distill_jax.report import run_data
from distill_jax.report import view as views
from distill_jax.report.view import RunView

STUDENTS, SELECTION, STEPS = "students", "selection", "steps"
# Title of each section, and the factor of its figures: percent, or as they are.
SECTIONS = {
    STUDENTS: ("Students, %", 100.0),
    SELECTION: ("Selection, %", 100.0),
    STEPS: ("Reward models", 1.0),
}
SOLVE, BENCH = "solve", "step_bench"
# Kind of stage -> figure of done.json -> its name in the report.
FIGURES = {
    "prm": {
        "eval/auc": "AUC of held-out steps",
        "eval/f1": "F1 on held-out problems",
        "eval/outcome_auc": "AUC of held-out solutions",
    },
    BENCH: {
        "steps/auc": "AUC of steps (a constant: 0.5)",
        "f1": "F1 of the first wrong step",
        "best constant": "F1 of the best constant",
        "acc_error": "wrong solutions, error found",
        "acc_correct": "right solutions, none found",
    },
}
Measure = dict[str, Any]
# In the names of differences.
_LESS = " less "


class Pooled(NamedTuple):
    """A measure over seeds.

    Attributes:
        name: of the measure.
        problems: mean, with the interval over problems for the models of these seeds.
        seeds: the same mean, with the t interval over seeds, for models of any seed.
        each: the value of each seed.
    """

    name: str
    problems: Interval
    seeds: Interval
    each: list[float]


def measures(workdir: Path, view: RunView) -> list[Measure]:
    """The measures of a complete run; [] for one without a stage of kind solve or step_bench."""
    if not any(stage.kind in (SOLVE, BENCH) for stage in view.stages):
        return []
    return [*_students(workdir, view), *_selection(workdir, view), *_steps(workdir, view)]


def _students(workdir: Path, view: RunView) -> Iterator[Measure]:
    found, same = {}, False
    for name in (views.TEACHER, views.BASE, *(stage.name for stage in view.students)):
        result = read_json(view.result_file(workdir, name))
        if result is not None:
            found[name], same = _right(result), _same_problems(workdir, result)
            for figure, right_N in found[name].items():
                interval = intervals.mean_interval(right_N)
                yield _measure(STUDENTS, f"{name}, {figure}", interval._asdict(), same)
    for after, before in compared(view):
        if after in found and before in found:
            for figure, right_N in found[after].items():
                change = intervals.paired(found[before][figure], right_N)
                name = f"{after}{_LESS}{before}, {figure}"
                yield _measure(STUDENTS, name, change._asdict(), same)


def compared(view: RunView) -> list[tuple[str, str]]:
    """(student, other): each student with its start, and with the first of its kind and start."""
    pairs: list[tuple[str, str]] = []
    first: dict[tuple[str, str], str] = {}
    for stage in view.students:
        pairs.append((stage.name, stage.start))
        other = first.setdefault((stage.kind, stage.start), stage.name)
        if other != stage.name:
            pairs.append((stage.name, other))
    return pairs


def _right(result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    problems = result["problems"]
    return {
        "greedy": np.array([row["greedy_right"] for row in problems], float),
        "pass@1": np.array([np.mean(row["sampled_right"]) for row in problems]),
    }


def _selection(workdir: Path, view: RunView) -> Iterator[Measure]:
    for stage in view.stages:
        path = workdir / stage.directory / run_data.SOLVED_FILE
        found = read_json(path) if stage.kind == SOLVE else None
        if found is None:
            continue
        same = _same_problems(workdir, found)
        for selector, one in found["selectors"].items():
            yield _measure(SELECTION, f"{stage.name}: {selector}", one, same)
            if selector != "majority":
                name = f"{stage.name}: {selector}{_LESS}majority"
                yield _measure(SELECTION, name, one["minus_majority"], same)
        yield _measure(SELECTION, f"{stage.name}: any is right", found["pass_at_n"], same)
        if found.get("score_auc") is not None:
            name = f"{stage.name}: AUC of scores within a problem"
            yield _measure(STEPS, name, {"mean": found["score_auc"]})
        # What one agent draws without search, verdicts and revisions are the plain samples.
        more = any(found.get(name) for name in ("search", "revision", "verified"))
        if found["plain"] is not None and (more or len(found["agents"]) > 1):
            for selector, one in found["plain"]["difference"].items():
                name = f"{stage.name}: {selector}{_LESS}one agent's"
                yield _measure(SELECTION, name, one, same)


def _steps(workdir: Path, view: RunView) -> Iterator[Measure]:
    for stage in view.stages:
        read = stage.kind in FIGURES
        done = read_json(workdir / stage.directory / "done.json") if read else None
        if done is None:
            continue
        found = dict(done["figures"])
        found["best constant"] = max(found.get("f1_of_constants", {}).values(), default=None)
        for figure, name in FIGURES[stage.kind].items():
            if found.get(figure) is not None:
                yield _measure(STEPS, f"{stage.name}: {name}", {"mean": found[figure]})


def _same_problems(workdir: Path, found: Mapping[str, Any]) -> bool:
    """Whether a result is of problems that other seeds have, too: all but the generated ones."""
    benchmark = found.get("benchmark", "test")
    config = read_json(workdir / CONFIG_FILE) or {}
    source = config["data"]["source"] if benchmark in SPLITS and config else benchmark
    return bool(source != "embedded")


def _measure(section: str, name: str, found: Mapping[str, Any], same: bool = False) -> Measure:
    interval = {part: found.get(part) for part in ("mean", "low", "high")}
    return {"section": section, "name": name, **interval, "same_problems": same}


def pool(runs: Sequence[Sequence[Measure]], section: str) -> list[Pooled]:
    """The measures of a section that all runs have, in the order of the first run.

    Seeds have other models. Where they have other problems, too, their errors are independent: each
    half of the interval over problems is √Σhᵢ²/n of the seeds' halves hᵢ. On the same problems the
    errors of the seeds go together, and Σhᵢ/n bounds it.
    """
    by_name = [{one["name"]: one for one in run if one["section"] == section} for run in runs]
    out = []
    for name in by_name[0] if by_name else ():
        if not all(name in one for one in by_name):
            continue
        found = [one[name] for one in by_name]
        each = [one["mean"] for one in found]
        mean = float(np.mean(each))
        over = Interval(mean, None, None)
        if all(one["low"] is not None for one in found):
            same = any(one.get("same_problems") for one in found)
            half_of = _dependent if same else _independent
            low, high = (
                half_of([one["mean"] - one["low"] for one in found]),
                half_of([one["high"] - one["mean"] for one in found]),
            )
            over = Interval(mean, mean - low, mean + high)
        # All are shares or areas, or differences of two.
        least = -1.0 if _LESS in name else 0.0
        out.append(Pooled(name, over, comparison.over_seeds(each, least, 1.0), each))
    return out


def _independent(halves: Sequence[float]) -> float:
    return math.hypot(*halves) / len(halves)


def _dependent(halves: Sequence[float]) -> float:
    return sum(halves) / len(halves)
