"""experiment_report.md: a table of arms, which differences are significant, what failed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.experiments import comparison
from distill_jax.experiments.arms import Arm

Rows = Sequence[Mapping[str, Any]]


def render(
    arms: Sequence[Arm],
    references: Sequence[str],
    rows: Rows,
    failed: Sequence[Mapping[str, Any]],
    *,
    command: str,
    figure: str,
) -> str:
    """The report as Markdown.

    Args:
        arms: in the order of the table.
        references: arms that differences are taken to.
        rows: of `results.read_run`, complete runs alone.
        failed: {"arm", "seed", "error"} of the others.
        command: that made it.
        figure: file name of the plot.
    """
    names = [arm.name for arm in arms]
    there = [name for name in names if comparison.of_arm(rows, name)]
    seeds = sorted({row["seed"] for row in rows})
    parts = ["# Experiment", "", f"`{command}`", ""]
    if there:
        parts += [
            f"Test accuracy in %, mean over seeds {', '.join(map(str, seeds))} and, with more than "
            "one, its 95% t interval over them: they differ in weights, data and sampling.",
            "Tokens are prompts and responses that the student was trained on, all stages; "
            "convergence is the first evaluation with 95% of the gain on validation; agreement is "
            "the share of what the teacher gets right that the student does, too.",
            "",
            *_table(rows, there),
            "",
        ]
        compared = [name for name in references if name in there]
        if compared and len(there) > 1:
            parts += _all_differences(rows, there, compared)
        parts += [
            f"![comparison]({figure})",
            "",
            "## By level, greedy, %",
            "",
            *_groups(rows, there, "levels"),
            "",
        ]
        if any(row["subjects"] for row in rows):
            parts += ["## By subject, greedy, %", "", *_groups(rows, there, "subjects"), ""]
    parts += ["## Arms", "", *_arms(arms), ""]
    if failed:
        parts += ["## Not complete", ""]
        parts += [f"- {run['arm']}, seed {run['seed']}: {run['error']}" for run in failed] + [""]
    return "\n".join(parts)


def _table(rows: Rows, arms: Sequence[str]) -> list[str]:
    head = "arm | seeds | greedy | pass@1 | agreement | tokens an answer | training tokens | "
    head += "convergence, steps | convergence, tokens | seconds"
    out = [f"| {head} |", "|" + " --- |" * 10]
    for arm in arms:
        found = comparison.of_arm(rows, arm)
        cells = [
            arm,
            str(len(found)),
            *(
                percent(comparison.over_seeds([row[f] for row in found], 0.0, 1.0))
                for f in comparison.FIGURES
            ),
            _mean([None if (a := row["agreement"]) is None else 100 * a for row in found], 1),
            _mean([row["mean_length"] for row in found], 1),
            _mean([row["tokens"]["all"] for row in found]),
            _mean([row["gain_steps"] for row in found]),
            _mean([row["gain_tokens"] for row in found]),
            _mean([row["seconds"]["all"] for row in found]),
        ]
        out.append("| " + " | ".join(cells) + " |")
    return out


def _all_differences(rows: Rows, arms: Sequence[str], references: Sequence[str]) -> list[str]:
    out = [
        "## Differences",
        "",
        "In points, paired by seed; p of Student's t over seeds, adjusted for several arms by "
        "Holm, bold below 0.05. With few seeds only large differences can be significant.",
        "",
    ]
    for reference in references:
        out += [f"Less {reference}:", "", *_differences(rows, arms, reference), ""]
    return out


def _differences(rows: Rows, arms: Sequence[str], reference: str) -> list[str]:
    out = ["| arm | greedy | p, adjusted | pass@1 | p, adjusted |", "|" + " --- |" * 5]
    found = {f: comparison.changes(rows, arms, reference, f) for f in comparison.FIGURES}
    for arm in arms:
        cells = [arm]
        for figure in comparison.FIGURES:
            change = found[figure].get(arm)
            if change is None:
                continue
            text = percent(change.interval, sign=True)
            p_value = "–" if change.adjusted is None else f"{change.adjusted:.3f}"
            cells += [f"**{text}**" if change.significant else text, p_value]
        if len(cells) > 1:
            out.append("| " + " | ".join(cells) + " |")
    return out


def _groups(rows: Rows, arms: Sequence[str], key: str) -> list[str]:
    names = sorted({name for row in rows for name in row[key]})
    out = ["| arm | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 1)]
    for arm in arms:
        found = comparison.of_arm(rows, arm)
        cells = []
        for name in names:
            values = [row[key][name]["greedy"] for row in found if name in row[key]]
            cells.append(f"{100 * np.mean(values):.1f}" if values else "–")
        out.append(f"| {arm} | " + " | ".join(cells) + " |")
    return out


def _arms(arms: Sequence[Arm]) -> list[str]:
    out = []
    for arm in arms:
        changes = ", ".join(f"`{name}={value!r}`" for name, value in arm.changes.items())
        out.append(f"- {arm.name}: {changes or 'the base settings'}")
    return out


def percent(value: comparison.Interval, *, sign: bool = False) -> str:
    """`61.3 [55.0, 67.6]`, in percent; without an interval where there is none."""
    form = "+.1f" if sign else ".1f"
    text = format(100 * value.mean, form)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{100 * value.low:{form}}, {100 * value.high:{form}}]"


def _mean(values: Sequence[float | None], digits: int = 0) -> str:
    """Mean, and of how many where some are None."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    text = f"{np.mean(known):,.{digits}f}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"
