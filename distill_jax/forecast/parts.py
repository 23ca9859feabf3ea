"""A forecast: the parts of a stage's memory, those that stay and those of a phase."""

import dataclasses
from typing import NamedTuple

GB = 10**9


class Part(NamedTuple):
    """A line of the table: bytes on one device, and whether they stay for the whole stage."""

    name: str
    bytes: int
    stays: bool


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Bytes on each device of one stage: what stays, then what each phase of a step adds.

    Phases follow one another.
    """

    stage: str
    devices: int
    parts: tuple[Part, ...]

    @property
    def resident(self) -> int:
        """Bytes that stay."""
        return sum(part.bytes for part in self.parts if part.stays)

    @property
    def phase(self) -> Part:
        """The phase that adds most; nothing, where every part stays or there is none."""
        passing = [part for part in self.parts if not part.stays]
        return max(passing, key=lambda part: part.bytes, default=Part("what stays", 0, False))

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment."""
        return self.resident + self.phase.bytes
