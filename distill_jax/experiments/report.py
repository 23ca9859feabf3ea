"""experiment_report.md: a table of arms, which differences are significant, what failed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.experiments import budgets, comparison, compute, figures, pooled
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
            *_equal_budgets(rows, names, compared),
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
    columns = dict(zip(comparison.FIGURES, _figure_names(rows), strict=True))
    for reference in references:
        table = _differences(rows, arms, reference, columns, "pass@1")
        out += [Text(f"Less {reference}", "heading"), table]
    return out


def _differences(
    rows: Rows, arms: Sequence[str], reference: str, columns: Mapping[str, str], equal: str
) -> Table:
    """columns: figure of the rows -> its title; equal: the figure of "equal within"."""
    found = [comparison.changes(rows, arms, reference, figure) for figure in columns]
    cells = []
    for arm in found[0]:  # all figures have the same arms
        row = [arm]
        for change in (changes[arm] for changes in found):
            text = percent(change.interval, sign=True)
            p_value = "–" if change.adjusted is None else f"{change.adjusted:.3f}"
            row += [Bold(text) if change.significant else text, p_value]
        margin = found[list(columns).index(equal)][arm].margin
        cells.append([*row, "–" if margin is None else f"{100 * margin:.1f}"])
    header = ["arm"]
    for name in columns.values():
        header += [name, "p, adjusted"]
    header.append("equal within")
    return Table(header, cells, f"arms less {reference}")


# --- equal budgets --------------------------------------------------------------------------------

_OF_FLOPS = (
    "Floating-point operations by formula: 2 a weight and token forwards, as much again backwards "
    "for the activations and where weights are trained for these, and the products of attention, "
    "at the mean length of a row; the head on responses alone. Of real tokens: padding, "
    "completions that are decoded on after their end, evaluation, recomputation, the adapters' own "
    "products, the optimiser and pretraining are not counted. Sampling and update are the "
    "student's; teacher: its scores of tokens and the answers that it writes; other: further "
    "forward passes of the student."
)
_OF_SECONDS = (
    "Seconds of training steps, each at the mean of its logged interval, without compilation, "
    "evaluation and saving. They mean something only if the runs were alone on equal machines."
)
_BETWEEN = (
    "Accuracy in % is that of the learning curves on validation, greedy, on a straight line "
    "between two evaluations, at the most that all these runs have spent: {}."
)


def _equal_budgets(rows: Rows, arms: Sequence[str], references: Sequence[str]) -> list[Section]:
    out = []
    for unit, said, title in (
        (budgets.FLOPS, Text(_OF_FLOPS), "At equal FLOPs"),
        (budgets.SECONDS, Text(_OF_SECONDS, "warning"), "At equal seconds of training"),
    ):
        reading = budgets.read(rows, unit)
        if reading is None:
            continue
        of_flops = unit == budgets.FLOPS
        budget = f"{reading.budget:.3g} FLOPs" if of_flops else f"{reading.budget:,.0f} s"
        blocks: list[Block] = [said, Text(_BETWEEN.format(budget))]
        estimated = of_flops and any(row["flops"]["estimated"] for row in reading.rows)
        if estimated:
            blocks.append(Text(_ESTIMATED))
        blocks.append(_at_budget(reading.rows, arms, of_flops))
        if reading.skipped:
            blocks += [Text("Not read:"), Bullets(reading.skipped)]
        read = {row["arm"] for row in reading.rows}
        for reference in (name for name in references if name in read):
            columns = {budgets.VALUE: "accuracy"}
            table = _differences(reading.rows, arms, reference, columns, budgets.VALUE)
            blocks += [Text(f"Less {reference}", "heading"), table]
        out.append(Section(unit, title, blocks))
    return out


_ESTIMATED = (
    "Some runs are of an earlier version, which recorded the tokens of responses as the mean "
    "length of logged steps alone: theirs are estimated from it."
)


def _at_budget(rows: Rows, arms: Sequence[str], of_flops: bool) -> Table:
    parts = ("all", *compute.PARTS) if of_flops else ()
    most = max([row["flops"]["parts"]["all"] for row in rows if parts], default=1.0)
    power = 3 * int(np.log10(max(most, 1.0)) // 3)
    header = ["arm", "seeds", *(f"{part}, 1e{power} FLOPs" for part in parts[:1]), *parts[1:]]
    cells = []
    for arm in arms:
        found = comparison.of_arm(rows, arm)
        if found:
            spent = [np.mean([row["flops"]["parts"][part] for row in found]) for part in parts]
            value = comparison.over_seeds([row[budgets.VALUE] for row in found], 0.0, 1.0)
            line = [arm, str(len(found)), *(f"{x / 10**power:.2f}" for x in spent)]
            cells.append([*line, _mean([row["tokens at budget"] for row in found]), percent(value)])
    header += ["training tokens by then", "accuracy by then"]
    return Table(header, cells, "arms at an equal budget")


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
