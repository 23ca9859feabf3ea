"""The report's tables beyond accuracy: more samples, reasoning, signs of reward hacking."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table; the first row is the header."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def estimate_cell(estimate: Mapping[str, Any] | None) -> str:
    """Mean and interval in percent; a dash where there is none."""
    if estimate is None or estimate["mean"] is None:
        return "–"
    mean, low, high = (100 * estimate[k] for k in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def sections(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Markdown sections; none for results of before these were measured."""
    known = {name: r for name, r in results.items() if "reasoning" in r["greedy"]}
    if not known:
        return []
    budgets = [k for k in next(iter(known.values()))["sampled"].get("pass@k", {}) if k != "1"]
    out = []
    if budgets:
        header = ["model", *(f"pass@{k}" for k in budgets), *(f"maj@{k}" for k in budgets)]
        cells = [
            [names[name], *(
                estimate_cell(result["sampled"][kind].get(k))
                for kind in ("pass@k", "maj@k") for k in budgets
            )]
            for name, result in known.items()
        ]  # fmt: skip
        out.append("## Several samples\n" + markdown_table(header, cells))
    header = ["model", "decoding", *REASONING.values()]
    cells = [
        [names[name], kind, *(estimate_cell(result[kind]["reasoning"][key]) for key in REASONING)]
        for name, result in known.items()
        for kind in ("greedy", "sampled")
    ]
    out.append(
        "## Reasoning\nPercent of the gold solution's step values that the answers write, and of "
        "the equations that they write (in calculator marks: marks) that are true.\n\n"
        + markdown_table(header, cells)
    )
    header = ["model", "decoding", *HACKING.values()]
    cells = [
        [names[name], kind, *(_share(result[kind]["hacking"][key]) for key in HACKING)]
        for name, result in known.items()
        for kind in ("greedy", "sampled")
    ]
    out.append("## Signs of reward hacking\n" + markdown_table(header, cells))
    return out


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
