"""The report's part on the training itself: checkpoints side by side, and how the run learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.evaluation import learning
from distill_jax.evaluation.curves import Bars, draw_bars
from distill_jax.evaluation.report_measures import (
    CHECKPOINT,
    estimate_cell,
    markdown_table,
    number_cell,
)
from distill_jax.training.records import METRICS_FILE, read_rows


def steps(results: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Results by step of stage rl: its checkpoints, and the student before it as step 0."""
    found = {
        int(name.removeprefix(CHECKPOINT)): result
        for name, result in results.items()
        if name.startswith(CHECKPOINT)
    }
    if found and "student_before" in results:
        found[0] = results["student_before"]
    return dict(sorted(found.items()))


def draw(results: Mapping[str, Any], target: Path) -> Path | None:
    """checkpoints.png in the directory: accuracy over steps; None below two checkpoints."""
    found = steps(results)
    if len(found) < 2:
        return None
    lines = {
        "greedy": _bars({step: r["greedy"]["accuracy"] for step, r in found.items()}),
        "pass@1": _bars({step: r["sampled"]["pass@1"] for step, r in found.items()}),
    }
    return draw_bars(lines, target / "checkpoints.png", "accuracy on held-out problems")


def _bars(estimates: Mapping[int, Mapping[str, float]]) -> Bars:
    return Bars(
        list(estimates),
        [e["mean"] for e in estimates.values()],
        [e["low"] for e in estimates.values()],
        [e["high"] for e in estimates.values()],
    )


def sections(workdir: Path, results: Mapping[str, Any], image: Path | None) -> list[str]:
    """Markdown sections: checkpoints where there are some, training where stage rl was run."""
    out = []
    found = steps(results)
    if found:
        header = ["step", "greedy", "pass@1", "KL(student‖teacher)"]
        cells = [
            [
                str(step),
                estimate_cell(result["greedy"]["accuracy"]),
                estimate_cell(result["sampled"]["pass@1"]),
                number_cell(result["distribution"]["reverse_kl"])
                if result.get("distribution")
                else "–",
            ]
            for step, result in found.items()
        ]
        out.append("## Checkpoints\n" + markdown_table(header, cells))
        if image is not None:
            out.append(f"![checkpoints](report/{image.name})")
    trained = learning.summary(read_rows(workdir / "rl" / METRICS_FILE))
    if trained is not None:
        out.append(_training(trained))
    return out


def _training(trained: Mapping[str, Any]) -> str:
    header = ["metric", "first", "last", "converged at step", "gain a million tokens", "spread"]
    cells = [
        [
            name,
            f"{one['first']:.4g}",
            f"{one['last']:.4g}",
            "–" if one["convergence_step"] is None else str(one["convergence_step"]),
            _number(one["gain_per_million_tokens"]),
            _number(one["stability"]),
        ]
        for name, one in trained["metrics"].items()
    ]
    return (
        f"## Training\nStage rl over {trained['steps']} steps. First and last are of a moving "
        "average that spans a fifth of the rows; it converged where that had "
        f"{100 * learning.SHARE:.0f}% of its gain. The spread is the standard deviation of the "
        "last fifth of the rows around their straight line.\n\n" + markdown_table(header, cells)
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
