"""An optimised HLO module, read from its text: operations, what they call, loops and arrays.

A module is a list of computations; operations name the computations that they call. An operation
is inside a loop where a while's body calls its computation, directly or through others.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_RESULT = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|called_computations|branch_computations)=")
_NAMES = re.compile(r"\{([^}]*)\}|%?([\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"')
_BITS = {"pred": 8, "f8": 8, "bf16": 16}
# Operations that name what their start has called.
_CALLED_BEFORE = ("async-update", "async-done")


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


class Operation(NamedTuple):
    """One line of a computation.

    Attributes:
        name: of its result.
        type: of its result, as written; may be a tuple.
        opcode: what it does.
        rest: operands and attributes, from behind the opening bracket.
        root: whether it is the computation's result.
    """

    name: str
    type: str
    opcode: str
    rest: str
    root: bool


class Module(NamedTuple):
    """Operations by computation, and the names of those that a call of the program begins with."""

    computations: dict[str, list[Operation]]
    entries: list[str]


class Placed(NamedTuple):
    """An operation that a call of the program reaches.

    Attributes:
        operation: the operation.
        computation: that it is in.
        types: result types by name in its computation.
        loops: while loops around it.
        times: how often it runs; a loop of unknown length counts once.
        fused: whether its result is not in memory: it is a part of a fusion, or of what a reduction
            or scatter applies to elements.
    """

    operation: Operation
    computation: str
    types: dict[str, str]
    loops: int
    times: int
    fused: bool


def parse(text: str) -> Module:
    """The module of `Compiled.as_text()`."""
    module, now = Module({}, []), None
    for line in text.splitlines():
        if line.startswith("}"):
            now = None
        elif now is not None:
            if (one := _operation(line)) is not None:
                now.append(one)
        elif head := _HEAD.match(line):
            now = module.computations[head[2]] = []
            if head[1]:
                module.entries.append(head[2])
    return module


def reached(module: Module) -> Iterator[Placed]:
    """The operations of the module's entry and of all that it calls.

    Those of a computation that several operations call come once for each.
    """
    for name in module.entries:
        yield from _inside(module, name, 0, 1, False)


def trip_counts(module: Module) -> list[int | None]:
    """How often each while loop that is reached turns; None where the text does not say."""
    return [
        _turns(module, one.operation.rest)
        for one in reached(module)
        if one.operation.opcode == "while"
    ]


def in_memory(module: Module) -> frozenset[Array]:
    """All kinds of arrays that operations return, but for those inside fusions."""
    types = {one.operation.type for one in reached(module) if not one.fused}
    return frozenset(array for text in types for array in arrays(text))


def arrays(text: str) -> list[Array]:
    """The arrays of a type, or of any text that names types."""
    return [
        Array(name, tuple(int(n) for n in extents.split(",") if n))
        for name, extents in _ARRAY.findall(text)
    ]


def operands(operation: Operation) -> tuple[str, list[str]]:
    """The operands as written, and their names."""
    written, _ = _type_and_rest("(" + operation.rest)
    return written, _NAME.findall(written)


def parts(type_: str) -> list[str]:
    """The members of a tuple type; the type itself, twice, where it is none."""
    if not type_.startswith("("):
        return [type_, type_]
    found, depth, start = [], 0, 1
    for place, letter in enumerate(type_):
        depth += (letter in "({[") - (letter in ")}]")
        if (letter == "," and depth == 1) or depth == 0:
            found.append(type_[start:place])
            start = place + 1
    return found if len(found) > 1 else [type_, type_]


def _bits(dtype: str) -> int:
    for name, bits in _BITS.items():
        if dtype.startswith(name):
            return bits
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 0


def _inside(module: Module, name: str, loops: int, times: int, fused: bool) -> Iterator[Placed]:
    operations = module.computations[name]
    types = {one.name: one.type for one in operations}
    for one in operations:
        yield Placed(one, name, types, loops, times, fused)
        if one.opcode in _CALLED_BEFORE:
            continue
        again = one.opcode == "while"
        more = times * (_turns(module, one.rest) or 1) if again else times
        for role, called in _calls(one.rest):
            if called in module.computations:
                by_element = role == "to_apply" and one.opcode != "call"
                inner = fused or by_element or one.opcode == "fusion"
                yield from _inside(module, called, loops + again, more, inner)


def _turns(module: Module, rest: str) -> int | None:
    """How often a while loop turns; None where its text does not say.

    The TPU compiler leaves known_trip_count out of the text. There the bound is the constant that
    the condition compares with: the counter of a scan begins at 0.
    """
    if known := _TRIPS.search(rest):
        return int(known[1])
    condition = module.computations.get(dict(_calls(rest)).get("condition", ""), [])
    constants = {
        one.name: int(bound[0])
        for one in condition
        if one.opcode == "constant" and (bound := re.match(r"\d+(?=\))", one.rest))
    }
    for one in condition:
        if one.root and "direction=LT" in one.rest:
            right = _NAME.findall(one.rest.partition(")")[0])[-1:]
            return constants.get(right[0]) if right else None
    return None


def _operation(line: str) -> Operation | None:
    head = _RESULT.match(line)
    if head is None:
        return None
    type_, rest = _type_and_rest(line[head.end() :])
    opcode, _, rest = rest.partition("(")
    return Operation(head[2], type_, opcode.strip(), rest, bool(head[1]))


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
