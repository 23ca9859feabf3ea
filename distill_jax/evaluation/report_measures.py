"""The report's tables beyond accuracy: more samples, reasoning, signs of reward hacking."""

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "teacher": "teacher",
    "student_base": "student base",
    "student_before": "student before RL",
    "student_distilled": "student distilled",
    "student_after": "student after RL",
    "model": "model given",
}
CHECKPOINT = "rl_step_"  # and the step: a checkpoint of stage rl
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


def label(name: str) -> str:
    """What a reader calls a subject."""
    if name.startswith(CHECKPOINT):
        return f"student at RL step {name.removeprefix(CHECKPOINT)}"
    return NAMES.get(name, name)


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


def sections(results: Mapping[str, Any]) -> list[str]:
    """Markdown sections; none for results of before these were measured."""
    known = {name: r for name, r in results.items() if "reasoning" in r["greedy"]}
    if not known:
        return []
    budgets = [k for k in next(iter(known.values()))["sampled"].get("pass@k", {}) if k != "1"]
    out = []
    if budgets:
        header = ["model", *(f"pass@{k}" for k in budgets), *(f"maj@{k}" for k in budgets)]
        cells = [
            [label(name), *(
                estimate_cell(result["sampled"][kind].get(k))
                for kind in ("pass@k", "maj@k") for k in budgets
            )]
            for name, result in known.items()
        ]  # fmt: skip
        out.append("## Several samples\n" + markdown_table(header, cells))
    header = ["model", "decoding", *REASONING.values()]
    cells = [
        [label(name), kind, *(estimate_cell(result[kind]["reasoning"][key]) for key in REASONING)]
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
        [label(name), kind, *(_share(result[kind]["hacking"][key]) for key in HACKING)]
        for name, result in known.items()
        for kind in ("greedy", "sampled")
    ]
    out.append("## Signs of reward hacking\n" + markdown_table(header, cells))
    return out + _distribution(results)


def _distribution(results: Mapping[str, Any]) -> list[str]:
    found = {name: r["distribution"] for name, r in results.items() if r.get("distribution")}
    if not found:
        return []
    cells = [
        [label(name), f"{one['tokens']}", *(number_cell(one[key]) for key in DISTRIBUTION)]
        for name, one in found.items()
    ]
    return [
        "## Beside the teacher\nNext-token distributions of student and teacher on the student's "
        "own greedy answers: means over tokens (divergences in nats), 95% intervals over answers."
        "\n\n" + markdown_table(["model", "tokens", *DISTRIBUTION.values()], cells)
    ]


def number_cell(estimate: Mapping[str, Any]) -> str:
    """Mean and interval as they are; a dash where there is none."""
    if estimate["mean"] is None:
        return "–"
    mean, low, high = (estimate[k] for k in ("mean", "low", "high"))
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
