"""Tables of evaluation results: accuracy, differences, reasoning, reward hacking, the teacher."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as ConsoleTable

from distill_jax.core.errors import DataError
from distill_jax.evaluation import intervals, learning
from distill_jax.report.sections import Table
from distill_jax.report.view import RunView, changes

Results = Mapping[str, Any]
DECODINGS = ("greedy", "sampled")
REASONING = {
    "step_coverage": "steps covered",
    "logical_consistency": "equations true",
    "arithmetic_validity": "marks true",
}
HACKING = {
    "truncated": "cut off",
    "repeated_ngrams": "repeated 4-grams",
    "looping": "ends in a loop",
    "several_answers": "several answers",
    "no_answer": "no answer",
}
DISTRIBUTION = {
    "forward_kl": "KL(teacher‖student)",
    "reverse_kl": "KL(student‖teacher)",
    "jensen_shannon": "Jensen-Shannon",
    "cosine": "cosine",
    "top1_agreement": "top-1 agreement",
}


def percent(estimate: Mapping[str, Any] | None) -> str:
    """Mean and interval in percent; a dash where there is none."""
    if estimate is None or estimate["mean"] is None:
        return "–"
    mean, low, high = (100 * estimate[k] for k in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def number_cell(estimate: Mapping[str, Any]) -> str:
    """Mean and interval as they are; a dash where there is none."""
    if estimate["mean"] is None:
        return "–"
    mean, low, high = (estimate[k] for k in ("mean", "low", "high"))
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _significant(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def accuracy(results: Results, view: RunView) -> Table:
    """Accuracy overall and per level, in percent, with 95% intervals."""
    levels = sorted({level for r in results.values() for level in r["greedy"]["levels"]}, key=int)
    rows = []
    for name, result in results.items():
        sampled = f"pass@1 ({result['samples']} at T={result['temperature']:g})"
        for kind, label, figure in (
            ("greedy", "greedy", "accuracy"),
            ("sampled", sampled, "pass@1"),
        ):
            part = result[kind]
            cells = [percent(part["levels"].get(level)) for level in levels]
            rows.append([view.label(name), label, percent(part[figure]), *cells])
    count = max((result["num_problems"] for result in results.values()), default=0)
    header = ["model", "decoding", "all", *(f"level {level}" for level in levels)]
    return Table(header, rows, f"% right of {count} held-out problems [95% interval]", 2)


def differences(results: Results, earlier: str, later: str) -> dict[str, intervals.Difference]:
    """A student less an earlier one on the same problems; empty if one was not evaluated.

    greedy by an exact McNemar test, pass@1 by a paired t-test over problems.

    Args:
        results: of `runner.evaluate`, by subject.
        earlier: the subject that is subtracted.
        later: the subject trained from it.

    Raises:
        DataError: the two results are of different problems.
    """
    if not {earlier, later} <= results.keys():
        return {}
    before, after = results[earlier]["problems"], results[later]["problems"]
    if [p["id"] for p in before] != [p["id"] for p in after]:
        raise DataError(
            f"{earlier} and {later} were evaluated on different problems",
            wanted="the same, in the same order",
            fix="delete the results of stage evaluate and run it again",
        )

    def column(problems: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
        return np.array([np.mean(p[name]) for p in problems])

    return {
        "greedy": intervals.mcnemar(column(before, "greedy_right"), column(after, "greedy_right")),
        "pass@1": intervals.paired(column(before, "sampled_right"), column(after, "sampled_right")),
    }


def difference_lines(results: Results, view: RunView) -> list[str]:
    """One sentence for each test of each pair of `view.changes`."""
    out = []
    for later, earlier in changes(view):
        for name, d in differences(results, earlier, later).items():
            mean, low, high = (100 * x for x in (d.mean, d.low, d.high))
            word = "significant" if d.significant else "not significant"
            out.append(
                f"{view.label(later)} against {view.label(earlier)}, "
                f"{name}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], p = {d.p_value:.2g}, {word}"
            )
    return out


def print_accuracy(console: Console, results: Results, view: RunView) -> None:
    """Prints the table of accuracies and, below it, what training changed."""
    found = accuracy(results, view)
    table = ConsoleTable(title=found.caption.replace("[", r"\["))
    for number, name in enumerate(found.header):
        table.add_column(name, justify="left" if number < found.names else "right")
    for row in found.rows:
        # The interval in a line below keeps the table inside a narrow terminal.
        table.add_row(*[cell.replace(" [", "\n[").replace("[", r"\[") for cell in row])
    console.print(table)
    for line in difference_lines(results, view):
        console.print(line, markup=False, highlight=False)


def answers(results: Results, view: RunView) -> Table:
    """Length and end of answers."""
    header = ["mean tokens", "ended with EOS", "undecided"]

    def cells(part: Mapping[str, Any]) -> list[str]:
        return [f"{part['mean_length']:.1f}", _share(part["terminated"]), _share(part["undecided"])]

    return _by_decoding(results, view, header, cells, "answers")


def samples(results: Results, view: RunView) -> Table | None:
    """pass@k and maj@k; None with one sample."""
    known = {name: r["sampled"] for name, r in results.items() if "pass@k" in r["sampled"]}
    budgets = [k for part in list(known.values())[:1] for k in part["pass@k"] if k != "1"]
    if not budgets:
        return None
    columns = [(kind, k) for kind in ("pass@k", "maj@k") for k in budgets]
    rows = [
        [view.label(name), *(percent(part[kind].get(k)) for kind, k in columns)]
        for name, part in known.items()
    ]
    header = ["model", *(kind.replace("k", k) for kind, k in columns)]
    return Table(header, rows, "percent of problems [95% interval]")


def reasoning(results: Results, view: RunView) -> Table | None:
    """Steps covered and equations true; None where they were not measured."""
    return _measured(results, view, "reasoning", REASONING, percent)


def hacking(results: Results, view: RunView) -> Table | None:
    """Signs of reward hacking; None where they were not measured."""
    return _measured(results, view, "hacking", HACKING, _share)


def _measured(
    results: Results,
    view: RunView,
    group: str,
    columns: Mapping[str, str],
    cell: Callable[[Any], str],
) -> Table | None:
    known = {name: r for name, r in results.items() if group in r["greedy"]}
    if not known:
        return None

    def cells(part: Mapping[str, Any]) -> list[str]:
        return [cell(part[group][key]) for key in columns]

    return _by_decoding(known, view, list(columns.values()), cells, f"{group}, percent of answers")


def _by_decoding(
    results: Results,
    view: RunView,
    header: Sequence[str],
    cells: Callable[[Mapping[str, Any]], list[str]],
    caption: str,
) -> Table:
    rows = [
        [view.label(name), kind, *cells(result[kind])]
        for name, result in results.items()
        for kind in DECODINGS
    ]
    return Table(["model", "decoding", *header], rows, caption, 2)


def distribution(results: Results, view: RunView) -> Table | None:
    """Next-token distributions compared with the teacher's; None where they were not."""
    found = {name: r["distribution"] for name, r in results.items() if r.get("distribution")}
    if not found:
        return None
    rows = [
        [view.label(name), f"{one['tokens']}", *(number_cell(one[key]) for key in DISTRIBUTION)]
        for name, one in found.items()
    ]
    header = ["model", "tokens", *DISTRIBUTION.values()]
    return Table(header, rows, "means over tokens [95% interval over answers]")


def checkpoints(results: Mapping[int, Any]) -> Table:
    """Accuracy and divergence from the teacher over the steps of a stage."""
    rows = []
    for step, result in results.items():
        divergence = result.get("distribution")
        rows.append(
            [
                str(step),
                percent(result["greedy"]["accuracy"]),
                percent(result["sampled"]["pass@1"]),
                number_cell(divergence["reverse_kl"]) if divergence else "–",
            ]
        )
    return Table(["step", "greedy", "pass@1", DISTRIBUTION["reverse_kl"]], rows, "checkpoints")


def training(stage: str, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Convergence, gain per token and stability; None without a metric of `learning.METRICS`."""
    found = learning.summary(rows)
    if found is None:
        return None
    cells = [
        [
            name,
            _significant(one["first"]),
            _significant(one["last"]),
            "–" if one["convergence_step"] is None else str(one["convergence_step"]),
            _significant(one["gain_per_million_tokens"]),
            _significant(one["stability"]),
        ]
        for name, one in found["metrics"].items()
    ]
    header = ["metric", "first", "last", "converged at step", "gain per million tokens", "spread"]
    return Table(header, cells, f"stage {stage} over {found['steps']} steps")
