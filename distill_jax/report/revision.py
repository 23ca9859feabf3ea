"""The part of a report on revision: before and after, new samples at equal tokens, evidence."""

from collections.abc import Iterable, Mapping
from typing import Any

from distill_jax.report.sections import Block, Table, Text
from distill_jax.report.tables import number_cell


def blocks(found: Mapping[str, Any]) -> Iterable[Block]:
    """What revision changed in a stage's results.json; nothing without rounds of revision."""
    known = found["revision"]
    # Results of earlier versions have no kinds of evidence.
    if known is None or "kinds" not in known:
        return
    yield _compared(known, found["num_problems"])
    yield Text(_trigger(known))
    if known["kinds"]:
        yield _kinds(known)


def _compared(known: Mapping[str, Any], problems: int) -> Table:
    rows = [
        ["first candidates", _percent(known["pass@1_before"]), "–", "", "", "", "0"],
        _row("after revision", known),
    ]
    control, less = known["resampled"], ""
    if control is not None:
        rows.append(_row("new samples instead", control))
        less = (
            "; revision less new samples, points: " + _percent(control["revision_less_this"]) + ","
            f" p = {control['revision_less_this']['p_value']:.2g}"
        )
    return Table(
        [
            "candidates", "pass@1, %", "less the first, points", "fixed", "broken", "unchanged",
            "more tokens a problem",
        ],
        rows,
        f"revision of {known['revised']} candidates of {problems} problems, paired by problem "
        f"[95% interval]{less}",
    )  # fmt: skip


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    counts = [str(one[kind]) for kind in ("fixed", "broken", "unchanged")]
    shares = [_percent(one["pass@1_after"]), _percent(one["difference"])]
    return [name, *shares, *counts, f"{one['tokens']:.0f}"]


def _trigger(known: Mapping[str, Any]) -> str:
    shares = {
        name: "–" if known[name] is None else f"{100 * known[name]:.1f}%"
        for name in ("precision", "recall")
    }
    return (
        f"There was evidence against {known['triggered']} candidates; {shares['precision']} of "
        f"them were wrong, and {shares['recall']} of the wrong first candidates were among them. "
        f"The prompts of {known['triggered'] - known['revised']} had no room. Evidence needs no "
        "gold answer; these shares were computed afterwards."
    )


def _kinds(known: Mapping[str, Any]) -> Table:
    names = ("triggered", "wrong", "fixed", "broken")
    rows = [
        [kind.replace("_", " "), *(str(one[name]) for name in names)]
        for kind, one in known["kinds"].items()
    ]
    return Table(
        ["evidence", *names],
        rows,
        "by kind of evidence, candidates in each round; one with several kinds counts in each",
    )


def _percent(estimate: Mapping[str, Any]) -> str:
    return number_cell(estimate, 100.0, 1)
