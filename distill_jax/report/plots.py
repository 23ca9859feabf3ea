"""The plots of a run's report: learning curves, reward terms, accuracy by level and checkpoint."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.evaluation import trends
from distill_jax.report.figures import SHARE, Plot, Series
from distill_jax.report.panels import Panel
from distill_jax.report.view import RunView

Metrics = Sequence[Mapping[str, Any]]
_TERM = re.compile(r"rewards/([^/]+)/mean")


def curves(stage: str, panels: Iterable[Panel], rows: Metrics) -> list[Plot]:
    """The panels of a stage; those without data are skipped."""
    out = []
    for panel in panels:
        lines = _lines(rows, panel.metrics)
        if lines:
            limits = SHARE if panel.share else None
            out.append(Plot(panel.title, lines, f"{stage}: {panel.title}", limits=limits))
    return out


def rewards(rows: Metrics) -> list[Plot]:
    """Each term of the reward before its weight, mean ± standard deviation over a step's
    completions; then adaptive weights, and the running scale of the intrinsic term."""
    names = sorted({m[1] for row in rows for name in row if (m := _TERM.fullmatch(name))})
    out = []
    for name in names:
        # Rows that have both: a band needs its middle.
        both = [f"rewards/{name}/mean", f"rewards/{name}/std"]
        complete = [row for row in rows if all(row.get(part) is not None for part in both)]
        middle, spread = (trends.values(complete, part) for part in both)
        if len(middle) and len(middle) == len(spread):
            (step_K, y_K), std_K = middle.T, spread[:, 1]
            title = f"{name}, mean ± std"
            series = Series(title, step_K, y_K, y_K - std_K, y_K + std_K)
            out.append(Plot(title, [series], f"reward term {name}"))
    weights = _lines(rows, {f"rewards/{name}/weight": name for name in names})
    if weights:
        out.append(Plot("adaptive weight of each term", weights, "adaptive weights"))
    scale = _lines(rows, {"rewards/intrinsic/scale": "scale"})
    if scale:
        out.append(Plot("running scale that the intrinsic reward is divided by", scale))
    return out


def _lines(rows: Metrics, metrics: Mapping[str, str]) -> list[Series]:
    found = [(label, trends.values(rows, name)) for name, label in metrics.items()]
    return [Series(label, *points_K2.T) for label, points_K2 in found if len(points_K2)]


def levels(results: Mapping[str, Any], kind: str, view: RunView) -> Plot | None:
    """Greedy or sampled accuracy of every subject at every level, with 95% intervals, or None."""
    results = {subject: result for subject, result in results.items() if result[kind]}
    known = sorted({n for r in results.values() for n in r[kind]["levels"]}, key=int)
    if not known:
        return None
    name = "greedy accuracy" if kind == "greedy" else "pass@1"
    series = []
    for subject, result in results.items():
        at = {i: result[kind]["levels"].get(level) for i, level in enumerate(known)}
        series += _estimates(view.label(subject), at, "points", 100.0)
    title, subject = f"{name} at each level, 95% intervals", f"{name} in percent"
    return Plot(title, series, subject, "level", "% right", known, (-3, 103), unit="%")


def checkpoints(results: Mapping[int, Mapping[str, Any]]) -> Plot:
    """Accuracy on held-out problems over the steps of a stage, with 95% intervals."""
    greedy = {step: result["greedy"]["accuracy"] for step, result in results.items()}
    sampled = {s: (result["sampled"] or {}).get("pass@1") for s, result in results.items()}
    series = _estimates("greedy", greedy, "joined") + _estimates("pass@1", sampled, "joined")
    return Plot("accuracy on held-out problems", series, limits=SHARE)


def _estimates(
    label: str, estimates: Mapping[int, Mapping[str, float] | None], style: str, scale: float = 1.0
) -> list[Series]:
    """A series of means with their intervals; [] where nothing was measured."""
    found = {x: e for x, e in estimates.items() if e is not None and e["mean"] is not None}
    if not found:
        return []
    y, low, high = (
        scale * np.array([e[part] for e in found.values()]) for part in ("mean", "low", "high")
    )
    return [Series(label, np.array(list(found)), y, low, high, style)]
