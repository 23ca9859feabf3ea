"""A line of a diagnosis: subject, status, reason, settings to try."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_jax.evaluation.trends import MIN_ROWS, Trend

OK, LOOK, BAD = "ok", "look", "bad"
TOO_FEW, NOT_RECORDED = "too few steps", "not recorded"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        what: the subject.
        status: one of the constants above.
        said: the reason; "" where none is needed.
        trend: the figure that the status follows from, or None.
        suggestions: setting -> how to change it; empty without trouble.
    """

    what: str
    status: str
    said: str = ""
    trend: Trend | None = None
    suggestions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        out = dataclasses.asdict(dataclasses.replace(self, trend=None))
        return {**out, "trend": None if self.trend is None else self.trend._asdict()}


def by_level(
    found: Trend | None,
    look: float,
    bad: float,
    said: str,
    suggestions: Mapping[str, str],
    absent: str = "",
) -> Finding:
    """Judges a share by its last fifth's mean: above `look`, above `bad`; `what` is left empty."""
    if found is None:
        return Finding("", NOT_RECORDED, absent)
    if found.last <= look:
        return too_short(found) or Finding("", OK, trend=found)
    return too_short(found) or Finding(
        "", BAD if found.last > bad else LOOK, said, found, suggestions
    )


def too_short(found: Trend) -> Finding | None:
    """The finding that there are too few rows for a trend, or None where there are enough."""
    if found.long_enough:
        return None
    return Finding("", TOO_FEW, f"{found.rows} rows, {MIN_ROWS} wanted", found)
