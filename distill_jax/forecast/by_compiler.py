"""A forecast whose phases are what the compiler says of their programs, not formulas."""

import dataclasses
from collections.abc import Iterable

from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.parts import Forecast, Part

# Phases, by how their names begin, whose programs' arguments stay for the whole stage (the rows
# of a batch, which do not, are small): what they add is the rest.
_ADDED = {
    "teacher scoring": ("teacher scores",),
    "student scoring": ("score",),
    "update": ("update", "update on own samples"),
}
_ROLLOUT = "rollout"


def replaced(found: Forecast, programs: Iterable[Compiled]) -> Forecast:
    """The forecast with the phases that these programs of its stage have.

    A phase takes what its programs hold beyond the arguments that stay; of a rollout, whose weights
    and cache are made for it, all. Phases without a program stay as they are.
    """
    by_name = {one.name: one for one in programs if one.stage == found.stage}
    parts = [part if part.stays else _phase(part, by_name) for part in found.parts]
    return dataclasses.replace(found, parts=tuple(parts))


def _phase(part: Part, programs: dict[str, Compiled]) -> Part:
    name = part.name.partition(":")[0]
    if name == _ROLLOUT:
        sizes = _rollout(programs)
    else:
        of_phase = (programs[one] for one in _ADDED.get(name, ()) if one in programs)
        sizes = [one.held - one.arguments for one in of_phase]
    return Part(f"{part.name} (compiled)", max(sizes), False) if sizes else part


def _rollout(programs: dict[str, Compiled]) -> list[int]:
    """Bytes of each program of drawing; the decode weights stay while ended rows are dropped."""
    sizes = [programs[name].held for name in ("prefill", "segment") if name in programs]
    if "segment" in programs and "compact" in programs:
        compact = programs["compact"]  # of what a segment carries, which is all but the weights
        sizes.append(compact.held + programs["segment"].arguments - compact.arguments)
    return sizes
