"""Bytes that an optimised program reads and writes in a device's main memory, by its text.

An operation reads its operands and writes its results. Those of a fusion are read as far as its
operations need them: of a table that is looked up the rows, of an array that is updated in place
nothing. What the TPU compiler places in the memory on chip (`S(1)` in a layout) does not count;
copying there from main memory does, once. The GPU compiler names no such places: what its caches
hold counts there.
"""

import math
import re
from collections import defaultdict

from distill_jax.forecast import hlo_text
from distill_jax.forecast.hlo_text import Array, Module, Operation, Placed

_TYPED = re.compile(r"\b(?:pred|[a-z]+\d+[a-z0-9]*)\[[\d,]*\](\{[^}]*\})?")
_ELSEWHERE = re.compile(r"S\([1-9]")
# These move nothing, or the operation that they end has.
_FREE = {
    "parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "after-all", "add-dependency", "opt-barrier", "partition-id", "replica-id",
}  # fmt: skip
_SLICES = {"slice", "dynamic-slice", "gather"}
# They read an element of each operand for one of the result; others may read all for any.
_WHOLE = {
    "dot", "convolution", "reduce", "reduce-window", "sort", "custom-call", "fusion",
    "concatenate", "pad",
}  # fmt: skip
# In place, of which operand they take what is new.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}


def traffic(module: Module, cached: int = 0) -> int:
    """Bytes read and written in one call of the program.

    cached: arrays of at most so many bytes that the program makes stay in a cache on the chip.
    Arguments, and what is updated in place of one, are read and written in main memory.
    """
    total = 0
    for one in hlo_text.reached(module):
        code = one.operation.opcode
        if not one.fused and code not in _FREE and not code.endswith(("-done", "-update")):
            total += _moved(module, one, cached) * one.times
    return total


def _moved(module: Module, one: Placed, cached: int) -> int:
    operation, code = one.operation, one.operation.opcode
    names = hlo_text.operands(operation)[1]
    made_of = {x.name: x for x in module.computations[one.computation]}

    def counted(name: str) -> str:
        type_ = one.types.get(name, "")
        large = any(array.bytes > cached for array in hlo_text.arrays(type_))
        return type_ if large or _of_argument(module, made_of, name) else ""

    types, result = [counted(name) for name in names], counted(operation.name)
    if code.endswith("-start"):  # of a tuple: what it makes, what of, and more
        parts = hlo_text.parts(operation.type)
        made = parts[0] if code == "copy-start" else parts[1]
        return (_elements(made) * _width(made) if any(map(_here, types)) else 0) + _here(made)
    inner = _fused(module, operation) or _alone(operation, names, one.types)
    return _read(inner, types) + (_written(inner, result) if result else 0)


def _of_argument(module: Module, made_of: dict[str, Operation], name: str) -> bool:
    """Whether a name stands for an argument in another shape, or for one that is updated."""
    while name in made_of:
        one = made_of[name]
        if one.opcode == "parameter":
            return True
        names = hlo_text.operands(one)[1]
        if one.opcode in ("bitcast", "get-tuple-element"):
            name = names[0]
            continue
        inner = _fused(module, one)
        at = {x.name: x for x in inner}
        root = next((x for x in inner if x.root), one)
        while root.opcode == "bitcast":
            root = at[hlo_text.operands(root)[1][0]]
        if root.opcode not in _UPDATES:
            return False
        name = hlo_text.operands(root)[1][0]
        while inner and at[name].opcode == "bitcast":
            name = hlo_text.operands(at[name])[1][0]
        if inner and at[name].opcode != "parameter":
            return False
        name = names[int(at[name].rest.partition(")")[0])] if inner else name
    return False


def _alone(operation: Operation, names: list[str], kinds: dict[str, str]) -> list[Operation]:
    """An operation outside of fusions as the only one of a fusion."""
    given = [
        Operation(name, kinds.get(name, ""), "parameter", f"{number})", False)
        for number, name in enumerate(names)
    ]
    return [*given, operation._replace(root=True)]


def _fused(module: Module, operation: Operation) -> list[Operation]:
    """The operations of a fusion; of other operations none."""
    called = re.search(r"calls=%?([\w.\-]+)", operation.rest)
    if operation.opcode != "fusion" or called is None:
        return []
    return module.computations.get(called[1], [])


def _read(inner: list[Operation], types: list[str]) -> int:
    """Bytes that the parameters give, whose types outside of the fusion are these."""
    kinds = {one.name: one.type for one in inner}
    needed: dict[str, int] = defaultdict(int)  # elements, by name
    read = 0
    for one in reversed(inner):  # users come after what they use
        count = _elements(one.type) if one.root else min(needed[one.name], _elements(one.type))
        if one.opcode == "parameter":
            number = int(one.rest.partition(")")[0])
            read += count * _width(one.type) if _here(types[number]) else 0
            continue
        for place, name in enumerate(hlo_text.operands(one)[1]):
            whole = _elements(kinds.get(name, ""))
            if one.opcode in _UPDATES and place == 0:
                some = 0 if one.root or count == whole else count
            elif (one.opcode in _SLICES and place) or one.opcode in {*_WHOLE, *_UPDATES}:
                some = whole
            else:
                some = min(count, whole)
            needed[name] = max(needed[name], some)
    return read


def _written(inner: list[Operation], type_: str) -> int:
    """Bytes of results of this type; of an array that is updated in place those that are new."""
    made = {one.name: one for one in inner}
    results = [one for one in inner if one.root]
    if results[0].opcode == "tuple":
        results = [made[name] for name in hlo_text.operands(results[0])[1]]
    written = _here(type_)
    for one in results:
        while one.opcode == "bitcast":
            one = made[hlo_text.operands(one)[1][0]]
        if one.opcode in _UPDATES and written:
            new = made[hlo_text.operands(one)[1][_UPDATES[one.opcode]]].type
            written -= (_elements(one.type) - _elements(new)) * _width(one.type)
    return max(written, 0)


def _here(type_: str) -> int:
    """Bytes of a type's arrays in main memory."""
    found = (match for match in _TYPED.finditer(type_) if not _ELSEWHERE.search(match[1] or ""))
    return sum(hlo_text.arrays(match[0])[0].bytes for match in found)


def _elements(type_: str) -> int:
    return sum(math.prod(array.shape) for array in hlo_text.arrays(type_))


def _width(type_: str) -> int:
    """Bytes of an element."""
    arrays = hlo_text.arrays(type_)
    return Array(arrays[0].dtype, ()).bytes if arrays else 0
