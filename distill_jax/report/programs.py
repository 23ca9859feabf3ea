"""The part of a report on programs among candidates, and on two tasks on the same problems."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from distill_jax.evaluation import intervals
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Block, Section, Table
from distill_jax.report.tables import PROGRAMS, number_cell


def tasks_compared(data: RunData) -> Iterable[Section]:
    """Of stages that evaluate under different tasks: their models on the same problems."""
    made = [one for one in (data.results, *data.others.values()) if one]
    named = {_about(results): results for results in reversed(made)}
    for a, b in itertools.combinations(sorted(named), 2):
        shared = [name for name in named[a] if name in named[b]]
        if a[0] != b[0] or not shared:
            continue
        rows = [
            [data.view.label(name), *_paired(named[a][name], named[b][name])] for name in shared
        ]
        difference = f"{a[1]} less {b[1]}, points"
        yield Section(
            f"tasks-{a[1]}-{b[1]}-{a[0]}",
            f"Tasks {a[1]} and {b[1]} on the same problems of {a[0]}",
            [
                Table(
                    [
                        "model", "problems", f"greedy, {a[1]}, %", f"{b[1]}, %", difference,
                        f"pass@1, {a[1]}, %", f"{b[1]}, %", difference,
                    ],
                    rows,
                    "% right [95% interval]; differences paired by problem",
                )
            ],
        )  # fmt: skip


def _about(results: Mapping[str, Any]) -> tuple[str, str]:
    """(benchmark, task) of a stage's results."""
    one = next(iter(results.values()))
    return one.get("benchmark", "test"), one.get("made_from", {}).get("task", "text")


def _paired(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Problems that both have; greedy and pass@1 of each and the difference, a less b."""
    rows = [{row["id"]: row for row in one["problems"]} for one in (a, b)]
    ids = [key for key in rows[0] if key in rows[1]]
    if not ids:
        return ["0", *["–"] * 6]
    greedy = [np.array([side[key]["greedy_right"] for key in ids], bool) for side in rows]
    cells = [str(len(ids))]
    cells += [_percent(intervals.wilson(int(one.sum()), len(ids))) for one in greedy]
    cells += [_percent(intervals.mcnemar(greedy[1], greedy[0]))]
    if not (a["sampled"] and b["sampled"]):
        return [*cells, *["–"] * 3]
    share = [np.array([np.mean(side[key]["sampled_right"]) for key in ids]) for side in rows]
    cells += [_percent(intervals.mean_interval(one)) for one in share]
    return [*cells, _percent(intervals.paired(share[1], share[0]))]


def _percent(estimate: intervals.Estimate | intervals.Difference) -> str:
    return number_cell(estimate._asdict(), 100.0, 1)


def solved(found: Mapping[str, Any]) -> Iterable[Block]:
    """Of a stage's results.json: its first candidates and those that are kept."""
    known = {name: one for name, one in found.get("task_figures", {}).items() if "programs" in one}
    if known:
        rows = [[name, *(cell(one) for cell in PROGRAMS.values())] for name, one in known.items()]
        yield Table(["candidates", *PROGRAMS], rows, "programs, percent of candidates")
