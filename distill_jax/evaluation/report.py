"""The end of a run: a table on the console, report.md and its learning curves as PNG."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from distill_jax.core import files
from distill_jax.evaluation import intervals, report_checkpoints, report_measures
from distill_jax.evaluation.curves import draw_curves


def rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table: accuracy overall and per level, in percent, 95% intervals."""
    levels = sorted({level for r in results.values() for level in r["greedy"]["levels"]}, key=int)
    header = ["model", "decoding", "all", *(f"level {level}" for level in levels)]
    out = []
    for name, result in results.items():
        for kind, whole in (("greedy", "accuracy"), ("sampled", "pass@1")):
            part = result[kind]
            cells = [report_measures.estimate_cell(part["levels"].get(level)) for level in levels]
            label = "greedy" if kind == "greedy" else _pass_label(result)
            out.append(
                [
                    report_measures.label(name),
                    label,
                    report_measures.estimate_cell(part[whole]),
                    *cells,
                ]
            )
    return header, out


def _pass_label(result: Mapping[str, Any]) -> str:
    return f"pass@1 ({result['samples']} at T={result['temperature']:g})"


# (later, earlier): what each stage changed.
CHANGES = (
    ("student_after", "student_before"),
    ("student_after", "student_base"),
    ("student_distilled", "student_base"),
    ("student_distilled", "student_before"),
)


def differences(
    results: Mapping[str, Any], earlier: str, later: str = "student_after"
) -> dict[str, intervals.Difference]:
    """A student against an earlier one on the same problems; empty if one is missing.

    greedy by an exact McNemar test, pass@1 by a paired t-test over problems.

    Args:
        results: of `runner.evaluate`, by subject.
        earlier: the subject to compare with.
        later: the subject that came of it.

    Raises:
        ValueError: the two results are of different problems.
    """
    if not {earlier, later} <= results.keys():
        return {}
    before, after = results[earlier]["problems"], results[later]["problems"]
    if [p["id"] for p in before] != [p["id"] for p in after]:
        raise ValueError("before and after were evaluated on different problems")

    def column(problems: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
        return np.array([np.mean(p[name]) for p in problems])

    return {
        "greedy": intervals.mcnemar(column(before, "greedy_right"), column(after, "greedy_right")),
        "pass@1": intervals.paired(column(before, "sampled_right"), column(after, "sampled_right")),
    }


def difference_lines(results: Mapping[str, Any]) -> list[str]:
    """One sentence a difference of CHANGES."""
    out = []
    for later, earlier in CHANGES:
        for name, d in differences(results, earlier, later).items():
            mean, low, high = (100 * x for x in (d.mean, d.low, d.high))
            word = "significant" if d.significant else "not significant"
            out.append(
                f"{report_measures.label(later)} against {report_measures.label(earlier)}, "
                f"{name}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], p = {d.p_value:.2g}, {word}"
            )
    return out


def print_table(console: Console, results: Mapping[str, Any]) -> None:
    """The table, and below it what changed."""
    header, cells = rows(results)
    count = max((r["num_problems"] for r in results.values()), default=0)
    title = f"accuracy in % on {count} held-out problems [95% interval]"
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < 2 else "right")
    for row in cells:
        # The interval on a line of its own keeps the table inside a narrow terminal.
        table.add_row(*[cell.replace(" [", "\n[").replace("[", r"\[") for cell in row])
    console.print(table)
    for line in difference_lines(results):
        console.print(line, markup=False, highlight=False)


def write(workdir: Path, results: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Writes workdir/report.md and the PNGs that it shows, in workdir/report/."""
    images = draw_curves(workdir, workdir / "report")
    path = report_checkpoints.draw(results, workdir / "report")
    header, cells = rows(results)
    count = max((r["num_problems"] for r in results.values()), default=0)
    data = config["data"]
    parts = [
        "# Report",
        f"Preset `{config['preset']}`, seed {config['seed']}, data `{data['source']}`, "
        f"algorithm `{config['rl']['algorithm']}`.",
        f"## Accuracy\nPercent of {count} held-out problems, with 95% intervals "
        "(Wilson for greedy; t over problems for pass@1, Wilson where all problems are alike).",
        report_measures.markdown_table(header, cells),
    ]
    bare = _bare_answers(workdir)
    if bare:
        parts.append(
            f"{100 * bare:.0f}% of the rows of stage sft show a bare answer without its steps. "
            "That teaches a student to blurt: what RL is worth shows against the student before "
            "it, and against the base."
        )
    changes = difference_lines(results)
    if changes:
        lines = "\n".join(f"- {line}" for line in changes)
        parts.append(
            "## What training changed\nPaired by problem (McNemar for greedy, paired t for "
            f"pass@1).\n\n{lines}"
        )
    parts.append("## Answers\n" + _answer_table(results))
    parts += report_measures.sections(results)
    parts += report_checkpoints.sections(workdir, results, path)
    if images:
        shown = "\n\n".join(f"![{p.stem}](report/{p.name})" for p in images)
        parts.append(f"## Learning curves\n{shown}")
    parts.append(_examples(results))
    text = "\n\n".join(part for part in parts if part) + "\n"
    files.write_text(workdir / "report.md", text)


def _bare_answers(workdir: Path) -> float:
    """Share of stage sft's rows that showed the answer alone; 0 without such a stage."""
    done = workdir / "sft" / "done.json"
    if not done.exists():
        return 0.0
    return float(json.loads(done.read_text(encoding="utf-8"))["figures"].get("bare_answers", 0.0))


def _answer_table(results: Mapping[str, Any]) -> str:
    header = ["model", "decoding", "mean tokens", "ended with EOS", "undecided"]
    cells = []
    for name, result in results.items():
        for kind in ("greedy", "sampled"):
            part = result[kind]
            cells.append(
                [
                    report_measures.label(name),
                    kind,
                    f"{part['mean_length']:.1f}",
                    f"{100 * part['terminated']:.1f}%",
                    f"{100 * part['undecided']:.1f}%",
                ]
            )
    return report_measures.markdown_table(header, cells)


def _examples(results: Mapping[str, Any], most: int = 5) -> str:
    if not results:
        return ""
    first = next(iter(results.values()))["problems"]
    out = ["## Examples", "Greedy answers to the first problems."]
    for i, problem in enumerate(first[:most]):
        lines = [f"**{problem['question']}** (gold {problem['answer']})", ""]
        for name, result in results.items():
            one = result["problems"][i]
            mark = "right" if one["greedy_right"] else "wrong"
            answer = one["greedy"].strip().replace("\n", " ⏎ ").replace("`", "'")
            lines.append(f"- {report_measures.label(name)} ({mark}): `{answer}`")
        out.append("\n".join(lines))
    return "\n\n".join(out)
