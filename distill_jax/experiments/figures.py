"""comprehensive_comparison.png: curves with bands, accuracy by level and subject, selection."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display on a server
import numpy as np  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

from distill_jax.experiments import comparison  # noqa: E402

Rows = Sequence[Mapping[str, Any]]
_MOST_SUBJECTS = 12


def draw(rows: Rows, arms: Sequence[str], path: Path) -> None:
    """Draws the panels that the rows have something for; written beside and renamed.

    Args:
        rows: of `results.read_run`.
        arms: names in the order of colours.
        path: a .png.
    """
    colours = {arm: f"C{number % 10}" for number, arm in enumerate(arms)}
    there = [arm for arm in arms if comparison.of_arm(rows, arm)]
    chosen = [arm for arm in there if any(row["curriculum"] for row in _of(rows, arm))]
    panels: list[Any] = [_curves, _levels, _efficiency]
    if any(row["subjects"] for row in rows):
        panels.insert(2, _subjects)
    count = len(panels) + len(chosen)
    across = min(3, count)
    down = -(-count // across)
    figure, axes = plt.subplots(down, across, figsize=(6 * across, 4 * down), squeeze=False)
    places = list(axes.flat)
    for panel, axis in zip(panels, places, strict=False):
        panel(axis, rows, there, colours)
    for arm, axis in zip(chosen, places[len(panels) :], strict=False):
        _selection(axis, _of(rows, arm), arm)
    for axis in places[count:]:
        axis.set_visible(False)
    # One legend: not every arm is in every panel.
    patches = [Patch(color=colours[arm], label=arm) for arm in there]
    figure.legend(handles=patches, loc="upper center", ncols=min(len(there), 6), fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.4 * -(-len(there) // 6) / (4 * down)))
    beside = path.with_suffix(".partial.png")
    figure.savefig(beside, dpi=110)
    plt.close(figure)
    beside.replace(path)


def _of(rows: Rows, arm: str) -> list[Mapping[str, Any]]:
    return comparison.of_arm(rows, arm)


def _curves(axis: Axes, rows: Rows, arms: Sequence[str], colours: Mapping[str, str]) -> None:
    for arm in arms:
        found = comparison.band(_of(rows, arm))
        if found is not None:
            axis.plot(found["tokens"], found["mean"], color=colours[arm], label=arm)
            axis.fill_between(
                found["tokens"], found["low"], found["high"], color=colours[arm], alpha=0.15
            )
    axis.set_title("validation, greedy: mean and range of the seeds", fontsize=10)
    axis.set_xlabel("training tokens")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)


def _bars(
    axis: Axes, rows: Rows, arms: Sequence[str], colours: Mapping[str, str], key: str
) -> None:
    names = sorted({name for row in rows for name in row[key]})[:_MOST_SUBJECTS]
    width = 0.8 / max(1, len(arms))
    for number, arm in enumerate(arms):
        means, errors = [], []
        for name in names:
            values = [row[key][name]["greedy"] for row in _of(rows, arm) if name in row[key]]
            means.append(float(np.mean(values)) if values else np.nan)
            spread = (min(values), max(values)) if values else (np.nan, np.nan)
            # A mean of equal values may be off by one rounding.
            reach = (means[-1] - spread[0], spread[1] - means[-1])
            errors.append(np.maximum(reach, 0.0))
        axis.bar(
            np.arange(len(names)) + (number - (len(arms) - 1) / 2) * width,
            means,
            width,
            yerr=np.array(errors).T.reshape(2, -1),
            color=colours[arm],
            label=arm,
            error_kw={"linewidth": 0.8},
        )
    axis.set_xticks(np.arange(len(names)), names, rotation=30 if key == "subjects" else 0)
    axis.set_ylim(0, 1.02)
    axis.grid(alpha=0.3, axis="y")


def _levels(axis: Axes, rows: Rows, arms: Sequence[str], colours: Mapping[str, str]) -> None:
    _bars(axis, rows, arms, colours, "levels")
    axis.set_title("test, greedy, by level: mean and range", fontsize=10)
    axis.set_xlabel("level")


def _subjects(axis: Axes, rows: Rows, arms: Sequence[str], colours: Mapping[str, str]) -> None:
    _bars(axis, rows, arms, colours, "subjects")
    axis.set_title("test, greedy, by subject: mean and range", fontsize=10)


def _efficiency(axis: Axes, rows: Rows, arms: Sequence[str], colours: Mapping[str, str]) -> None:
    for arm in arms:
        points = [
            (row["gain_tokens"], row["greedy"])
            for row in _of(rows, arm)
            if row["gain_tokens"] is not None
        ]
        if points:
            tokens, accuracy = zip(*points, strict=True)
            axis.scatter(tokens, accuracy, color=colours[arm], label=arm, s=24)
    axis.set_title("sample efficiency: tokens to 95% of the gain", fontsize=10)
    axis.set_xlabel("training tokens")
    axis.set_ylabel("test, greedy")
    axis.grid(alpha=0.3)


def _selection(axis: Axes, rows: Sequence[Mapping[str, Any]], arm: str) -> None:
    """Mean over seeds of each curriculum arm's probability; steps that all seeds logged."""
    logged = [{point["step"]: point["p"] for point in row["curriculum"]} for row in rows]
    steps = sorted(set.intersection(*(set(found) for found in logged)))
    names = sorted({name for found in logged for p in found.values() for name in p})
    shares = [
        [float(np.mean([found[step].get(name, 0.0) or 0.0 for found in logged])) for step in steps]
        for name in names
    ]
    if steps:
        axis.stackplot(steps, shares, labels=names, alpha=0.85)
        axis.legend(fontsize=7, loc="upper right")
    axis.set_title(f"{arm}: probability of each curriculum arm", fontsize=10)
    axis.set_xlabel("step")
    axis.set_ylim(0, 1)
