"""The part of a report on stages in which a student learns on its own right solutions."""

from collections.abc import Iterable, Mapping
from typing import Any

from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Block, Bullets, Section, Table

_HEADER = (
    "round", "right", "accepted", "learnt on", "solved for the first time", "precision",
    "pass@1", "pass@{k}", "tokens",
)  # fmt: skip


def sections(data: RunData) -> Iterable[Section]:
    """For each complete stage with such rounds."""
    for stage in data.stages:
        found = stage.figures
        if "student_of_round" in found:
            blocks: list[Block] = [table(found), Bullets(remarks(found))]
            yield Section(
                f"rounds-{stage.name}",
                f"Self-evolution ({stage.name})",
                blocks,
                "Solutions of training problems that each round drew, was right about, accepted "
                "and learnt on, those of earlier rounds included; then samples of validation "
                "problems by the student after the round, with their mean tokens. Precision is "
                "the share of right solutions among those that the reward model scores above the "
                "threshold.",
            )


def table(found: Mapping[str, Any]) -> Table:
    """A row a round; round 0 is the student that wrote the first solutions."""
    rows = []
    for one in found["rounds"]:
        held, filtered = one["held_out"], one.get("reward_model") or {}
        measured = [f"{held['pass@1']:.3f}", f"{held['pass@k']:.3f}", f"{held['mean_tokens']:.1f}"]
        drawn = [""] * 5
        if one["round"]:
            names = ("accepted", "trained_on", "newly_solved")
            right = f"{one['right']} of {one['tried']}"
            drawn = [right, *(str(one[name]) for name in names), _share(filtered.get("precision"))]
        rows.append([str(one["round"]), *drawn, *measured])
    header = [name.format(k=found["k"]) for name in _HEADER]
    count = found["rounds"][0]["held_out"]["problems"]
    return Table(header, rows, f"{count} validation problems, {found['k']} samples each")


def remarks(found: Mapping[str, Any]) -> list[str]:
    """Whose student it is, why it ended; what a threshold and an exploration were worth."""
    why = found["stopped"] or "all rounds were run"
    out = [f"The student is that of round {found['student_of_round']}; {why}."]
    for one in found["rounds"]:
        known = (one.get("reward_model") or {}).get("problems_it_may_know")
        if known:
            out.append(
                f"Round {one['round']}: the reward model may have been trained on {known} of these "
                f"{one['problems']} problems, where its scores say little."
            )
        if explored := one.get("exploration"):
            fresh = explored["fresh"]
            out.append(
                f"Round {one['round']}: {explored['solved']} of {explored['problems']} problems "
                f"solved by writing on from before a low step ({explored['tokens']} tokens); fresh "
                f"samples solved {fresh['solved']} of {fresh['problems']} ({fresh['tokens']} "
                "tokens)."
            )
    return out


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
