"""The collectives of an optimised HLO module, read from its text.

A module is a list of computations; operations name the computations that they call. A collective
is inside a loop where a while's body calls its computation, directly or through others.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

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

_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_RESULT = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|called_computations|branch_computations)=")
_NAMES = re.compile(r"\{([^}]*)\}|%?([\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"')
_BITS = {"pred": 8, "f8": 8, "bf16": 16}


class Array(NamedTuple):
    """An element type and extents, e.g. bf16[8,256]."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Without padding of tiles."""
        return math.prod(self.shape) * _bits(self.dtype) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


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


@dataclass
class _Computation:
    entry: bool
    lines: list[str] = field(default_factory=list)


class _Operation(NamedTuple):
    name: str
    type: str
    opcode: str
    rest: str


def collectives(text: str) -> list[Collective]:
    """All collectives that the module's entry reaches; see `Compiled.as_text()`.

    A computation that several operations call is counted for each of them.
    """
    found = _computations(text)
    entries = [name for name, one in found.items() if one.entry]
    return [one for name in entries for one in _inside(found, name, 0, 1)]


def _bits(dtype: str) -> int:
    for name, bits in _BITS.items():
        if dtype.startswith(name):
            return bits
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 0


def _computations(text: str) -> dict[str, _Computation]:
    found: dict[str, _Computation] = {}
    now: _Computation | None = None
    for line in text.splitlines():
        if line.startswith("}"):
            now = None
        elif now is not None:
            now.lines.append(line)
        elif head := _HEAD.match(line):
            now = found[head[2]] = _Computation(bool(head[1]))
    return found


def _inside(
    found: dict[str, _Computation], name: str, loops: int, times: int
) -> Iterator[Collective]:
    operations = [one for line in found[name].lines if (one := _operation(line)) is not None]
    types = {one.name: one.type for one in operations}
    for one in operations:
        kind = one.opcode.removesuffix("-start")
        if kind in KINDS:
            yield _collective(kind, one, types, loops, times)
            continue
        if one.opcode in ("async-update", "async-done"):  # they name what their start has called
            continue
        again = one.opcode == "while"
        more = _turns(found, one.rest) if again else 1
        for _, called in _calls(one.rest):
            if called in found:
                yield from _inside(found, called, loops + again, times * more)


def _turns(found: dict[str, _Computation], rest: str) -> int:
    """How often a while loop turns; 1 where its text does not say.

    The TPU compiler leaves known_trip_count out of the text. There the bound is the constant that
    the condition compares with: the counter of a scan begins at 0.
    """
    if known := _TRIPS.search(rest):
        return int(known[1])
    condition = dict(_calls(rest)).get("condition", "")
    lines = found[condition].lines if condition in found else []
    constants = {
        one.name: int(bound[0])
        for line in lines
        if (one := _operation(line)) and one.opcode == "constant"
        if (bound := re.match(r"\d+(?=\))", one.rest))
    }
    for line in lines:
        one = _operation(line)
        if line.lstrip().startswith("ROOT") and one and "direction=LT" in one.rest:
            right = _NAME.findall(one.rest.partition(")")[0])[-1:]
            return constants.get(right[0], 1) if right else 1
    return 1


def _operation(line: str) -> _Operation | None:
    head = _RESULT.match(line)
    if head is None:
        return None
    type_, rest = _type_and_rest(line[head.end() :])
    opcode, _, rest = rest.partition("(")
    return _Operation(head[1], type_, opcode.strip(), rest)


def _type_and_rest(text: str) -> tuple[str, str]:
    """A type, which may be a tuple of types, and what follows it."""
    if not text.startswith("("):
        type_, _, rest = text.partition(" ")
        return type_, rest
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :].lstrip()
    return text, ""


def _calls(rest: str) -> Iterator[tuple[str, str]]:
    """(role, computation) of each that an operation calls."""
    for role in _CALLED.finditer(rest):
        names = _NAMES.match(rest, role.end())
        if names is not None:
            for name in (names[1] or names[2] or "").split(","):
                yield role[1], name.strip().lstrip("%")


def _collective(
    kind: str, one: _Operation, types: dict[str, str], loops: int, times: int
) -> Collective:
    result = one.type
    if one.opcode == f"{kind}-start" and kind in _START_HOLDS_OPERANDS:
        result = _parts(one.type)[1]
    operands, _ = _type_and_rest("(" + one.rest)
    named = (types.get(name, "") for name in _NAME.findall(operands))
    arrays = _arrays(result)
    everything = [*arrays, *_arrays(operands), *(x for text in named for x in _arrays(text))]
    op_name = re.search(r'op_name="([^"]*)"', one.rest)
    return Collective(
        kind,
        tuple(arrays),
        max(everything, key=lambda array: array.bytes),
        loops,
        times,
        op_name[1] if op_name else "",
    )


def _parts(type_: str) -> list[str]:
    """The members of a tuple type; the type itself, twice, where it is none."""
    if not type_.startswith("("):
        return [type_, type_]
    parts, depth, start = [], 0, 1
    for place, letter in enumerate(type_):
        depth += (letter in "({[") - (letter in ")}]")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(type_[start:place])
            start = place + 1
    return parts if len(parts) > 1 else [type_, type_]


def _arrays(text: str) -> list[Array]:
    return [
        Array(name, tuple(int(n) for n in extents.split(",") if n))
        for name, extents in _ARRAY.findall(text)
    ]
