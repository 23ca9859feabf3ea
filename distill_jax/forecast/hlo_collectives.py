"""The collectives of an optimised HLO module, in loops and outside."""

import re
from dataclasses import dataclass

from distill_jax.forecast import hlo_text
from distill_jax.forecast.hlo_text import Array, Module, Placed

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# Of these the type of `NAME-start` is (operands, results, ...); of all-reduce it is the results.
_START_HOLDS_OPERANDS = ("all-gather", "collective-permute")

_ASYNCHRONOUS = 'custom_call_target="AsyncCollectiveStart"'
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        kind: one of KINDS.
        result: arrays that it returns, on one device.
        largest: the largest array among operands and results.
        loops: while loops around it, 0 for outside.
        times: how often it runs in one call of the program; a loop of unknown length
            counts once.
        op_name: of the traced operation, "" where the compiler gives none.
    """

    kind: str
    result: tuple[Array, ...]
    largest: Array
    loops: int
    times: int
    op_name: str

    @property
    def bytes(self) -> int:
        """Of the result, one time."""
        return sum(array.bytes for array in self.result)


def collectives(module: Module) -> list[Collective]:
    """All collectives that the module's entry reaches.

    A computation that several operations call is counted for each of them.

    The TPU compiler repeats an asynchronous collective, with its channel, in each fusion that
    overlaps with it; it counts where it starts.
    """
    begun = {
        name
        for name, operations in module.computations.items()
        if any(_ASYNCHRONOUS in one.rest for one in operations)
    }
    found = [
        one
        for one in hlo_text.reached(module)
        if one.operation.opcode.removesuffix("-start") in KINDS
    ]
    carried = {_channel(one) for one in found if one.computation in begun} - {""}
    return [
        _collective(one.operation.opcode.removesuffix("-start"), one)
        for one in found
        if one.computation in begun or _channel(one) not in carried
    ]


def _channel(placed: Placed) -> str:
    found = _CHANNEL.search(placed.operation.rest)
    return found[1] if found else ""


def _collective(kind: str, placed: Placed) -> Collective:
    one = placed.operation
    result = one.type
    if one.opcode == f"{kind}-start" and kind in _START_HOLDS_OPERANDS:
        result = hlo_text.parts(one.type)[1]
    written, names = hlo_text.operands(one)
    returned = hlo_text.arrays(result)
    read = [x for name in names for x in hlo_text.arrays(placed.types.get(name, ""))]
    op_name = re.search(r'op_name="([^"]*)"', one.rest)
    return Collective(
        kind,
        tuple(returned),
        max([*returned, *hlo_text.arrays(written), *read], key=lambda array: array.bytes),
        placed.loops,
        placed.times,
        op_name[1] if op_name else "",
    )
