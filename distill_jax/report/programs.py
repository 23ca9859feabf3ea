"""The part of a report on programs: how they ended, assertions, hard-coded answers; with text."""

from collections.abc import Iterable, Mapping
from typing import Any

from distill_jax.report.sections import Block, Section, Table
from distill_jax.report.tables import DECODINGS
from distill_jax.report.view import RunView

_PROGRAMS = "programs"
_NOTE = (
    "Hard-coded: of the right programs that were tested, those whose answer is written in them or "
    "stays the same when the numbers of the question change."
)


def sections(results: Mapping[str, Any], view: RunView) -> Iterable[Section]:
    """Of the evaluated models whose completions are programs."""
    known = {
        f"{view.label(name)}, {kind}": result[kind][_PROGRAMS]
        for name, result in results.items()
        for kind in DECODINGS
        if _PROGRAMS in result[kind]
    }
    if known:
        yield Section("programs", "Programs", [*_tables(known, "model, decoding")], _NOTE)


def solved(found: Mapping[str, Any]) -> Iterable[Block]:
    """Of a stage's results.json: its first candidates and those that are kept."""
    known = {
        f"{name} candidates": one[_PROGRAMS]
        for name, one in found.get("task_figures", {}).items()
        if _PROGRAMS in one
    }
    return _tables(known, "candidates") if known else []


def _tables(known: Mapping[str, Any], title: str) -> Iterable[Table]:
    rows = [
        [name, *(_share(one[key]) for key in ("ran", "asserted", "hardcoded_rate"))]
        for name, one in known.items()
    ]
    yield Table([title, "ran", "have assertions", "hard-coded of the right ones"], rows, "programs")
    classes = sorted({failure for one in known.values() for failure in one["failures"]})
    if classes:
        counts = [
            [name, *(str(one["failures"].get(failure, 0)) for failure in classes)]
            for name, one in known.items()
        ]
        yield Table([title, *classes], counts, "failures by class, completions")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
