"""Tables of evaluation results: accuracy, differences, reasoning, reward hacking, the teacher."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as ConsoleTable

from distill_jax.evaluation import intervals, learning, paired
from distill_jax.report import chosen
from distill_jax.report.sections import Table
from distill_jax.report.view import RunView, changes

Results = Mapping[str, Any]
# Title of a column -> its cell.
Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
DECODINGS = ("greedy", "sampled")
# Chance of this size is named, and so many samples a problem narrow pass@1 of a few problems.
NOISE, _MANY = 0.05, 16
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


def number_cell(estimate: Mapping[str, Any] | None, scale: float = 1.0, digits: int = 4) -> str:
    """Mean and interval; a dash where there is none."""
    if estimate is None or estimate["mean"] is None:
        return "–"
    mean, low, high = (f"{scale * estimate[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _percent(estimate: Mapping[str, Any] | None) -> str:
    return number_cell(estimate, 100.0, 1)


def _form(value: Any, form: str = ".1%") -> str:
    return "–" if value is None else format(value, form)


def _by_subject(results: Results, view: RunView, columns: Columns, caption: str) -> Table:
    rows = [
        [view.label(name), *(cell(result) for cell in columns.values())]
        for name, result in results.items()
    ]
    return Table(["model", *columns], rows, caption)


def _by_decoding(results: Results, view: RunView, columns: Columns, caption: str) -> Table:
    rows = [
        [view.label(name), kind, *(cell(result[kind]) for cell in columns.values())]
        for name, result in results.items()
        for kind in DECODINGS
        if result[kind]
    ]
    return Table(["model", "decoding", *columns], rows, caption, 2)


def accuracy(results: Results, view: RunView) -> Table:
    """Accuracy overall and per level, in percent, with 95% intervals."""
    levels = sorted({level for r in results.values() for level in r["greedy"]["levels"]}, key=int)
    columns: dict[str, Any] = {
        "all": lambda part: _percent(part["accuracy"] if "accuracy" in part else part["pass@1"]),
        "cut off": lambda part: _form(1.0 - part["terminated"]),
    }
    if any(r["greedy"].get("flexible") for r in results.values()):
        columns["last number"] = lambda part: _percent(part.get("flexible"))
    for level in levels:
        columns[f"level {level}"] = lambda part, n=level: _percent(part["levels"].get(n))
    limits = sorted({r["max_new_tokens"] for r in results.values() if "max_new_tokens" in r})
    tokens = f" with at most {' or '.join(map(str, limits))} new tokens" if limits else ""
    caption = f"% right of {_count(results)} held-out problems{tokens} [95% interval]"
    table = _by_decoding(results, view, columns, caption)
    drawn = [result for result in results.values() if result["sampled"]]
    named = [row for row in table.rows if isinstance(row, list) and row[1] == "sampled"]
    for row, result in zip(named, drawn, strict=True):
        row[1] = f"pass@1 ({result['samples']} at T={result['temperature']:g})"
    return table


def _count(results: Results) -> int:
    return max((result["num_problems"] for result in results.values()), default=0)


def few_problems(results: Results) -> str:
    """What chance may do to an accuracy, where the problems are few; "" where they are enough."""
    count = _count(results)
    if not count or intervals.noise(count) < NOISE:
        return ""
    samples = min(result["samples"] for result in results.values())
    more = f", or draw at least {_MANY} samples of each (now {samples})" if samples < _MANY else ""
    return (
        f"With {count} problems ±{100 * intervals.noise(count):.0f} points are noise: an accuracy "
        "near 50% is not known better (Wilson). Do not compare two models by one figure each: see "
        f"the paired tests{more}. The interval of pass@1 counts problems, not samples."
    )


def differences(results: Results, earlier: str, later: str) -> dict[str, intervals.Difference]:
    """A student less an earlier one on the same problems; empty if one was not evaluated.

    greedy by an exact McNemar test, pass@1 by a paired t-test over problems.

    Raises:
        DataError: the two results are of different problems.
    """
    if not {earlier, later} <= results.keys():
        return {}
    before, after = results[earlier]["problems"], results[later]["problems"]
    chosen.check_same(before, after)

    def columns(name: str) -> list[np.ndarray]:
        return [np.array([np.mean(p[name]) for p in problems]) for problems in (before, after)]

    found = {"greedy": intervals.mcnemar(*columns("greedy_right"))}
    if results[earlier]["sampled"] and results[later]["sampled"]:
        before_N, after_N = columns("sampled_right")
        found["pass@1"] = intervals.paired(before_N, after_N)
    return found


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


def length_lines(results: Results, view: RunView) -> list[str]:
    """One sentence on the tokens of right greedy answers for each pair of `view.changes`."""
    out = []
    for later, earlier in changes(view):
        if not {earlier, later} <= results.keys():
            continue
        before, after = results[earlier]["problems"], results[later]["problems"]
        chosen.check_same(before, after)
        found = paired.lengths(*map(_right_tokens, (before, after)))
        if found is not None:
            d = found.difference
            out.append(
                f"{view.label(later)} against {view.label(earlier)}, tokens of the "
                f"{found.problems} greedy answers right both times: {found.before:.1f} before, "
                f"{found.after:.1f} after, {d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}], "
                f"p = {d.p_value:.2g}"
            )
    return out


def _right_tokens(problems: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Tokens of each right greedy answer; None for a wrong one, and in results without tokens."""
    return [p.get("greedy_tokens") if p["greedy_right"] else None for p in problems]


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
    for line in filter(
        None,
        [few_problems(results), *difference_lines(results, view), *length_lines(results, view)],
    ):
        console.print(line, markup=False, highlight=False)


def answers(results: Results, view: RunView) -> Table:
    """Length and end of answers."""
    columns: Columns = {
        "mean tokens": lambda part: _form(part["mean_length"], ".1f"),
        "ended with EOS": lambda part: _form(part["terminated"]),
        "undecided": lambda part: _form(part["undecided"]),
    }
    return _by_decoding(results, view, columns, "greedy and sampled answers")


def measured(results: Results, view: RunView, group: str) -> Table | None:
    """The measures of a group, reasoning or hacking; None where they were not taken."""
    known = {name: r for name, r in results.items() if group in r["greedy"]}
    columns: dict[str, Any] = {}
    for key, title in (REASONING if group == "reasoning" else HACKING).items():
        cell: Any = _percent if group == "reasoning" else _form
        columns[title] = lambda part, key=key, cell=cell: cell(part[group][key])
    return _by_decoding(known, view, columns, f"{group}, percent of answers") if known else None


def programs(results: Results, view: RunView) -> Table | None:
    """What became of the programs; None where the task asks for none."""
    known = {name: r for name, r in results.items() if "programs" in r["greedy"]}
    return _by_decoding(known, view, PROGRAMS, "percent of answers") if known else None


def _failures(part: Mapping[str, Any]) -> str:
    counts = part["programs"]["failures"].items()
    return ", ".join(f"{name} {count}" for name, count in counts) or "–"


PROGRAMS: Columns = {
    "ran": lambda part: _form(part["programs"]["ran"]),
    "with assertions": lambda part: _form(part["programs"]["asserted"]),
    "right but hard-coded": lambda part: _form(part["programs"]["hardcoded_rate"]),
    "failures": _failures,
}


def samples(results: Results, view: RunView) -> Table | None:
    """pass@k and maj@k; None with one sample."""
    known = {name: r for name, r in results.items() if "pass@k" in (r["sampled"] or {})}
    budgets = [k for r in list(known.values())[:1] for k in r["sampled"]["pass@k"] if k != "1"]
    columns: dict[str, Any] = {}
    for kind in ("pass@k", "maj@k"):
        for k in budgets:
            title = kind.replace("k", k)
            columns[title] = lambda r, at=(kind, k): _percent(r["sampled"][at[0]].get(at[1]))
    return _by_subject(known, view, columns, "% of problems [95% interval]") if budgets else None


def distribution(results: Results, view: RunView) -> Table | None:
    """Next-token distributions compared with the teacher's; None where they were not."""
    found = {name: r["distribution"] for name, r in results.items() if r.get("distribution")}
    columns: dict[str, Any] = {"tokens": lambda one: str(one["tokens"])}
    for key, title in DISTRIBUTION.items():
        columns[title] = lambda one, key=key: number_cell(one[key])
    caption = "means over tokens [95% interval over answers]"
    return _by_subject(found, view, columns, caption) if found else None


def checkpoints(results: Mapping[int, Any]) -> Table:
    """Accuracy and divergence from the teacher over the steps of a stage."""
    rows = []
    for step, result in results.items():
        shares = result["greedy"]["accuracy"], (result["sampled"] or {}).get("pass@1")
        divergence = (result.get("distribution") or {}).get("reverse_kl")
        rows.append([str(step), *map(_percent, shares), number_cell(divergence)])
    header = ["step", "greedy", "pass@1", DISTRIBUTION["reverse_kl"]]
    return Table(header, rows, "held-out problems [95% interval]")


def training(stage: str, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Convergence, gain per token and stability; None without a metric of `learning.METRICS`."""
    found = learning.summary(rows)
    if found is None:
        return None
    forms = {
        "first": ".4g",
        "last": ".4g",
        "convergence_step": "d",
        "gain_per_million_tokens": ".4g",
        "stability": ".4g",
    }
    cells = [
        [name, *(_form(one[key], form) for key, form in forms.items())]
        for name, one in found["metrics"].items()
    ]
    header = ["metric", "first", "last", "converged at step", "gain per million tokens", "spread"]
    return Table(header, cells, f"stage {stage} over {found['steps']} steps")
