"""Plots of an experiment: curves with bands, accuracy by level and subject, selection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.experiments import comparison
from distill_jax.report.figures import SHARE, Plot, Series

Rows = Sequence[Mapping[str, Any]]
_MOST_SUBJECTS = 12


def plots(rows: Rows, arms: Sequence[str]) -> list[Plot]:
    """The plots of rows of `results.collect`; an arm has the colour of its place in `arms`."""
    made = {arm: of for arm in arms if (of := comparison.of_arm(rows, arm))}
    colours = {arm: number for number, arm in enumerate(arms)}
    out = [_curves(made, colours), _groups(made, colours, "levels", "level")]
    if any(row["subjects"] for row in rows):
        out.append(_groups(made, colours, "subjects", "subject"))
    out.append(_efficiency(made, colours))
    chosen = [arm for arm in made if any(row["curriculum"] for row in made[arm])]
    return [*out, *(_selection(made[arm], arm) for arm in chosen)]


def _curves(made: Mapping[str, Rows], colours: Mapping[str, int]) -> Plot:
    series = []
    for arm, rows in made.items():
        band = comparison.band(rows)
        if band is not None:
            x, y, low, high = (band[part] for part in ("tokens", "mean", "low", "high"))
            series.append(Series(arm, x, y, low, high, colour=colours[arm]))
    title = "validation, greedy: mean and range of the seeds"
    return Plot(title, series, xlabel="training tokens", limits=SHARE, legend=False)


def _groups(made: Mapping[str, Rows], colours: Mapping[str, int], key: str, name: str) -> Plot:
    names = sorted({group for rows in made.values() for row in rows for group in row[key]})
    names, series = names[:_MOST_SUBJECTS], []
    for arm, rows in made.items():
        values = [[row[key][n]["greedy"] for row in rows if n in row[key]] for n in names]
        at = np.array([place for place, found in enumerate(values) if found])
        y, low, high = (
            np.array([float(figure(found)) for found in values if found])
            for figure in (np.mean, min, max)
        )
        series.append(Series(arm, at, y, low, high, "bars", colours[arm]))
    title, limits = f"test, greedy, by {name}: mean and range", (0, 1.02)
    return Plot(title, series, xlabel=name, ticks=names, limits=limits, legend=False)


def _efficiency(made: Mapping[str, Rows], colours: Mapping[str, int]) -> Plot:
    series = []
    for arm, rows in made.items():
        found = [(r["gain_tokens"], r["greedy"]) for r in rows if r["gain_tokens"] is not None]
        if found:
            x, y = np.array(found, float).T
            series.append(Series(arm, x, y, style="points", colour=colours[arm]))
    title, tokens = "sample efficiency: tokens to 95% of the gain", "training tokens"
    return Plot(title, series, xlabel=tokens, ylabel="test, greedy", legend=False)


def _selection(rows: Rows, arm: str) -> Plot:
    """Mean over seeds of each curriculum arm's probability; steps that all seeds logged."""
    logged = [{point["step"]: point["p"] for point in row["curriculum"]} for row in rows]
    steps = sorted(set.intersection(*(set(found) for found in logged)))
    names = sorted({name for found in logged for p in found.values() for name in p})
    series, below = [], np.zeros(len(steps))
    for name in names if steps else ():
        share = np.array(
            [np.mean([found[step].get(name, 0.0) or 0.0 for found in logged]) for step in steps]
        )
        series.append(Series(name, np.array(steps), share, below, below + share, "area"))
        below = below + share
    return Plot(f"{arm}: probability of each curriculum arm", series, limits=(0, 1))
