"""Sets of numbers: what inequalities describe, and intervals joined where they touch."""

import math
import re
from fractions import Fraction
from typing import NamedTuple

from distill_jax.answers.numbers import parse_number
from distill_jax.answers.reading import read_shape
from distill_jax.answers.shapes import (
    MIRROR,
    Conditions,
    Interval,
    Relation,
    Scalar,
    Sequence,
    Shape,
    Union,
    bounded_name,
    is_infinite,
    is_name,
)

_ABSOLUTE = re.compile(r"\|\s*([a-z])\s*\|")


def as_set(shape: Shape, *, conditions: bool = False) -> Shape:
    """The numbers that an inequality describes; the shape itself where it is no such inequality.

    conditions: only several of them beside each other are of interest.
    """
    if isinstance(shape, Conditions):
        return _joined(shape)
    if conditions:
        return shape
    if isinstance(shape, Sequence) and shape.kind == "tuple" and len(shape.items) == 2:
        return Interval(shape.items[0], shape.items[1], False, False)
    if not isinstance(shape, Relation) or "=" in shape.signs:
        return shape
    parts, signs = shape.parts, shape.signs
    where = [k for k, part in enumerate(parts) if is_name(part)]
    infinity = Scalar("\\infty")
    minus = Scalar("-\\infty")
    if len(parts) == 2 and (absolute := _ABSOLUTE.fullmatch(parts[0])) and signs[0] != "≠":
        return _absolute(absolute[1], parts[1], signs[0])
    if len(parts) == 2 and len(where) == 1:
        sign = signs[0] if where[0] == 0 else MIRROR[signs[0]]
        bound = read_shape(parts[1 - where[0]])
        if sign == "≠":
            return Union(
                (Interval(minus, bound, False, False), Interval(bound, infinity, False, False))
            )
        if sign in "<≤":
            return Interval(minus, bound, False, sign == "≤")
        return Interval(bound, infinity, sign == "≥", False)
    if (
        len(parts) == 3
        and where == [1]
        and len(set("<≤") & set(signs))
        and not set(">≥≠") & set(signs)
    ):
        low, high = read_shape(parts[0]), read_shape(parts[2])
        return Interval(low, high, signs[0] == "≤", signs[1] == "≤")
    if len(parts) == 3 and where == [1] and not set("<≤≠") & set(signs):
        low, high = read_shape(parts[2]), read_shape(parts[0])
        return Interval(low, high, signs[1] == "≥", signs[0] == "≥")
    return shape


def _absolute(name: str, bound: str, sign: str) -> Shape:
    """|x| < b lies between −b and b, |x| > b outside."""
    negative = f"-{bound}" if parse_number(bound) else f"-({bound})"
    if sign in "<≤":
        return as_set(Relation((negative, name, bound), (sign, sign)))
    outside = (Relation((name, negative), (MIRROR[sign],)), Relation((name, bound), (sign,)))
    return Union(tuple(as_set(part) for part in outside))


def _joined(shape: Conditions) -> Shape:
    """Conditions on one number as a set; themselves where their ends are no plain numbers.

    What holds together are: all beside "and" or beside a ≠, and two half-lines that overlap; half-
    lines that do not ("x < 1, x > 3") are the parts of a union.
    """
    if len({bounded_name(item) for item in shape.items}) > 1:
        return shape
    parts = [as_sets((item,)) for item in shape.items]
    ends = [[end for end in map(_ends, part) if end] for part in parts]
    if [len(part) for part in parts] != [len(end) for end in ends]:
        return shape
    common = ends[0]
    for other in ends[1:]:
        common = [both for a in common for b in other if (both := _overlap(a, b)) is not None]
    unequal = any("≠" in item.signs for item in shape.items)
    if common and (shape.all_hold or unequal or len(parts) == 2):
        found = [
            Interval(_scalar(e.low), _scalar(e.high), not e.low_open, e.high_closed)
            for e in sorted(common)
        ]
        return found[0] if len(found) == 1 else Union(tuple(found))
    if common or shape.all_hold or unequal:
        return shape
    return Union(tuple(part for several in parts for part in several))


def _overlap(a: "_Ends", b: "_Ends") -> "_Ends | None":
    low, low_open = max((a.low, a.low_open), (b.low, b.low_open))
    high, high_closed = min((a.high, a.high_closed), (b.high, b.high_closed))
    if low > high or (low == high and (low_open or not high_closed)):
        return None
    return _Ends(low, low_open, high, high_closed)


def as_sets(parts: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Inequalities as intervals, unions opened, sets of values joined, and what touches, too."""
    flat: list[Shape] = []
    for part in map(as_set, parts):
        flat += as_sets(part.parts) if isinstance(part, Union) else (part,)
    points: list[Shape] = []
    rest: list[Shape] = []
    for part in flat:
        if isinstance(part, Sequence) and part.kind == "set":
            points += part.items
        else:
            rest.append(part)
    ends = [_ends(part) for part in rest]
    if len(rest) > 1 and all(ends):
        rest = _merged([end for end in ends if end])
    return (*rest, Sequence("set", tuple(points))) if points else tuple(rest)


def is_merged(parts: tuple[Shape, ...]) -> bool:
    """Whether parts are intervals between plain numbers, which `as_sets` joins where they touch."""
    return all(_ends(part) for part in parts)


class _Ends(NamedTuple):
    low: Fraction | float
    low_open: bool
    high: Fraction | float
    high_closed: bool


def _ends(shape: Shape) -> _Ends | None:
    """The ends of an interval between plain numbers or infinities."""
    if not isinstance(shape, Interval):
        return None
    low, high = _end(shape.low), _end(shape.high)
    if low is None or high is None:
        return None
    return _Ends(low, not shape.low_closed, high, shape.high_closed)


def _end(shape: Shape) -> Fraction | float | None:
    if not isinstance(shape, Scalar):
        return None
    if is_infinite(shape.formula):
        return -math.inf if shape.formula.strip().startswith("-") else math.inf
    number = parse_number(shape.formula)
    return number.value if number else None


def _merged(ends: list[_Ends]) -> list[Shape]:
    joined: list[_Ends] = []
    for end in sorted(ends):
        last = joined[-1] if joined else None
        touches = last is not None and (
            end.low < last.high or (end.low == last.high and (last.high_closed or not end.low_open))
        )
        if last is not None and touches:
            high, closed = max((last.high, last.high_closed), (end.high, end.high_closed))
            joined[-1] = last._replace(high=high, high_closed=closed)
        else:
            joined.append(end)
    return [
        Interval(_scalar(e.low), _scalar(e.high), not e.low_open, e.high_closed) for e in joined
    ]


def _scalar(value: Fraction | float) -> Scalar:
    if isinstance(value, float):
        return Scalar("\\infty" if value > 0 else "-\\infty")
    return Scalar(str(value))
