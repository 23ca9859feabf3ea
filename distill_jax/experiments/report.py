"""experiment_report.md: a table of arms, which differences are significant, what failed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.experiments import comparison, figures, pooled
from distill_jax.experiments.arms import Arm
from distill_jax.report.sections import Block, Bold, Bullets, Curves, Report, Section, Table, Text

Rows = Sequence[Mapping[str, Any]]
FIGURE = "comprehensive_comparison"


def build(
    arms: Sequence[Arm],
    references: Sequence[str],
    rows: Rows,
    failed: Sequence[Mapping[str, Any]],
    *,
    command: str,
) -> Report:
    """The report of an experiment.

    Args:
        arms: in the order of the table.
        references: arms that differences are taken to.
        rows: of `results.collect`, of complete runs.
        failed: {"arm", "seed", "error"} of the others.
        command: that made it.
    """
    all_arms = [arm.name for arm in arms]
    names = [name for name in all_arms if comparison.of_arm(rows, name)]
    compared = [name for name in references if name in names] if len(names) > 1 else []
    sections: list[Section] = []
    if names:
        legend = [(name, all_arms.index(name)) for name in names]
        sections = [
            Section("arms", "Arms compared", _accuracies(rows, names)),
            Section("differences", "Differences", _all_differences(rows, names, compared)),
            Section("plots", "Plots", [Curves(FIGURE, figures.plots(rows, all_arms), legend)]),
        ]
        for key, title in (("levels", "level"), ("subjects", "subject")):
            if key == "levels" or any(row[key] for row in rows):
                table = _groups(rows, names, key)
                sections.append(Section(key, f"By {title}, greedy, %", [table]))
        sections += [section for name in names for section in _stages(rows, name)]
    sections.append(Section("settings", "Arms", [Bullets([_settings(arm) for arm in arms])]))
    if failed:
        lines = [f"{run['arm']}, seed {run['seed']}: {run['error']}" for run in failed]
        sections.append(Section("failed", "Not complete", [Bullets(lines)]))
    return Report("Experiment", f"`{command}`", sections)


def _accuracies(rows: Rows, arms: Sequence[str]) -> list[Block]:
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    texts = (
        f"Test accuracy in %, mean over seeds {seeds} and, with more than one, its 95% t interval "
        "over them: they differ in weights, data and sampling.",
        "Tokens are prompts and responses that the student was trained on, in all its stages; "
        "convergence is the first evaluation with 95% of the gain on validation; agreement is "
        "the share of the problems that the teacher solves which the student solves too.",
    )
    header = [
        "arm", "seeds", *_figure_names(rows), "agreement", "tokens per answer", "training tokens",
        "convergence, steps", "convergence, tokens", "seconds",
    ]  # fmt: skip
    cells = []
    for arm in arms:
        found = comparison.of_arm(rows, arm)
        shares = [[row[f] for row in found] for f in comparison.FIGURES]
        agreement = [None if (a := row["agreement"]) is None else 100 * a for row in found]
        counts = [
            [row["tokens"]["all"] for row in found],
            [row["gain_steps"] for row in found],
            [row["gain_tokens"] for row in found],
            [row["seconds"]["all"] for row in found],
        ]
        line = [arm, str(len(found))]
        line += [percent(comparison.over_seeds(share, 0.0, 1.0)) for share in shares]
        line += [_mean(x, 1) for x in (agreement, [row["mean_length"] for row in found])]
        cells.append([*line, *map(_mean, counts)])
    return [*map(Text, texts), Table(header, cells, "arms over seeds")]


def _figure_names(rows: Rows) -> list[str]:
    """Of `comparison.FIGURES`, with the number of samples where all rows have the same."""
    counts = {row["samples"] for row in rows}
    return [*comparison.FIGURES[:2], f"pass@{counts.pop() if len(counts) == 1 else 'k'}"]


def _all_differences(rows: Rows, arms: Sequence[str], references: Sequence[str]) -> list[Block]:
    if not references:
        return []
    text = (
        "In points, paired by seed; p of Student's t over seeds, adjusted for several arms by "
        "Holm, bold below 0.05. With few seeds only large differences can be significant. Equal "
        "within: the least margin within which two one-sided t tests at 5% show the difference at "
        "pass@1 to lie, not adjusted for several arms."
    )
    out: list[Block] = [Text(text)]
    for reference in references:
        out += [Text(f"Less {reference}", "heading"), _differences(rows, arms, reference)]
    return out


def _differences(rows: Rows, arms: Sequence[str], reference: str) -> Table:
    found = [comparison.changes(rows, arms, reference, f) for f in comparison.FIGURES]
    cells = []
    for arm in found[0]:  # all figures have the same arms
        row = [arm]
        for change in (changes[arm] for changes in found):
            text = percent(change.interval, sign=True)
            p_value = "–" if change.adjusted is None else f"{change.adjusted:.3f}"
            row += [Bold(text) if change.significant else text, p_value]
        margin = found[comparison.FIGURES.index("pass@1")][arm].margin
        cells.append([*row, "–" if margin is None else f"{100 * margin:.1f}"])
    header = ["arm"]
    for name in _figure_names(rows):
        header += [name, "p, adjusted"]
    header.append("equal within")
    return Table(header, cells, f"arms less {reference}")


def _groups(rows: Rows, arms: Sequence[str], key: str) -> Table:
    names = sorted({name for row in rows for name in row[key]})
    cells = []
    for arm in arms:
        row = [arm]
        for name in names:
            found = comparison.of_arm(rows, arm)
            values = [one[key][name]["greedy"] for one in found if name in one[key]]
            row.append(f"{100 * np.mean(values):.1f}" if values else "–")
        cells.append(row)
    return Table(["arm", *names], cells, f"greedy accuracy by {key}, %")


def _stages(rows: Rows, arm: str) -> list[Section]:
    """The measures of an arm's stages, a section each; none where nothing solves."""
    runs = [row.get("measures", []) for row in comparison.of_arm(rows, arm)]
    text = (
        "Mean over seeds with its 95% interval over problems, for the models of these seeds; then "
        "that of Student's t over seeds, for the models of any seed; then each seed."
    )
    out = []
    for name, (title, factor) in pooled.SECTIONS.items():
        cells = [
            [
                one.name,
                *(percent(x, factor=factor) for x in (one.problems, one.seeds)),
                ", ".join(f"{factor * value:.{_digits(factor)}f}" for value in one.each),
            ]
            for one in pooled.pool(runs, name)
        ]
        if cells:
            header = ["measure", "mean [problems]", "mean [seeds]", "each seed"]
            table = Table(header, cells, f"{title.lower()} of arm {arm}")
            out.append(Section(f"{name}-{arm}", f"{title} ({arm})", [Text(text), table]))
    return out


def _settings(arm: Arm) -> str:
    changes = ", ".join(f"`{name}={value!r}`" for name, value in arm.changes.items())
    return f"{arm.name}: {changes or 'the base settings'}"


def percent(value: comparison.Interval, *, sign: bool = False, factor: float = 100.0) -> str:
    """`61.3 [55.0, 67.6]`, in percent; without an interval where there is none."""
    form = f"{'+' if sign else ''}.{_digits(factor)}f"
    text = format(factor * value.mean, form)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{factor * value.low:{form}}, {factor * value.high:{form}}]"


def _digits(factor: float) -> int:
    return 1 if factor == 100.0 else 3


def _mean(values: Sequence[float | None], digits: int = 0) -> str:
    """Mean, and of how many where some are None."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    text = f"{np.mean(known):,.{digits}f}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"
