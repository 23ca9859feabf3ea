"""A line of a diagnosis: subject, status, reason, settings to try."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_jax.evaluation.trends import Trend

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
