"""The part of a report on stages that check a reward model against labelled steps."""

from collections.abc import Iterable, Mapping
from typing import Any

from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Section, Table

_CONSTANTS = {"all_right": "no step is wrong", "first_wrong": "the first step is wrong"}
_HEADER = (
    "what finds the first wrong step", "threshold", "F1", "exact, wrong solutions",
    "exact, right solutions", "AUC of steps",
)  # fmt: skip


def sections(data: RunData) -> Iterable[Section]:
    """For each complete stage whose figures hold those of constants."""
    for stage in data.stages:
        if "f1_of_constants" in stage.figures:
            yield Section(
                f"steps-{stage.name}",
                f"Reward model against labelled steps ({stage.name})",
                [table(stage.figures)],
                "F1 is the harmonic mean of the shares of wrong and of right solutions whose first "
                "wrong step (or none) is named exactly, as in ProcessBench. The AUC is that of "
                "right against wrong steps.",
            )


def table(found: Mapping[str, Any]) -> Table:
    """F1, AUC and threshold of the model, and what predictors that read nothing reach."""
    figures = [_number(found[name]) for name in ("threshold", "f1", "acc_error", "acc_correct")]
    rows = [["the reward model", *figures, _number(found.get("steps/auc"))]]
    for name, value in found["f1_of_constants"].items():
        rows.append(
            [f"constant: {_CONSTANTS.get(name, name)}", "", _number(value), "", "", "0.500"]
        )
    cut = f", {found['too_long']} too long to be scored" if found["too_long"] else ""
    caption = f"{found['solutions']} solutions, {found['with_error']} with an error{cut}"
    return Table(list(_HEADER), rows, caption)


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"
