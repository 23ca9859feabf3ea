"""The part of a report on what preference training did to accuracy and length."""

from collections.abc import Iterable, Mapping
from typing import Any

from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Block, Section, Table, Text


def sections(data: RunData) -> Iterable[Section]:
    """For each complete stage with a guard."""
    for stage in data.stages:
        found = stage.figures.get("guard")
        if found is None:
            continue
        blocks: list[Block] = [table(found)]
        if stage.figures["regressed"]:
            blocks.append(
                Text(
                    f"Stage {stage.name} regressed: accuracy fell by more than {found['margin']:g} "
                    "points. Its student is the one that it started from; the trained one is in "
                    "its checkpoints.",
                    "warning",
                )
            )
        if stage.figures.get("ended_by_drift"):
            blocks.append(
                Text(
                    f"Training of {stage.name} ended at step {stage.figures['steps']}: its chosen "
                    f"completions had lost {-stage.figures['chosen_drift']:.3f} nats per token."
                )
            )
        yield Section(
            f"guard-{stage.name}",
            f"Before and after preferences ({stage.name})",
            blocks,
            "Greedy answers to the same validation problems. Tokens are means over the problems "
            "that both have right.",
        )


def table(found: Mapping[str, Any]) -> Table:
    """Accuracy, tokens and share with EOS before and after, and the paired difference."""
    rows = []
    for name in ("before", "after"):
        share, tokens = found["accuracy"][name], found["tokens"][name]
        rows.append(
            [
                name,
                f"{100 * share['mean']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]",
                "–" if tokens is None else f"{tokens:.1f}",
                f"{100 * found['terminated'][name]:.1f}",
            ]
        )
    d = found["difference"]
    interval = f"[{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
    caption = (
        f"{found['problems']} problems, {found['right_in_both']} right in both; accuracy changed "
        f"by {100 * d['mean']:+.1f} points {interval}, p = {d['p_value']:.3g}"
    )
    return Table(["student", "accuracy, %", "tokens", "with EOS, %"], rows, caption)
