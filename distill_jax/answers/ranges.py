"""Sets of numbers: what inequalities describe, and intervals joined where they touch."""

import math
import re
from fractions import Fraction
from functools import reduce
from itertools import chain
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

    conditions: read only several inequalities together.
    """
    if isinstance(shape, Conditions):
        return _joined(shape)
    if conditions:
        return shape
    if isinstance(shape, Sequence) and shape.kind == "tuple" and len(shape.items) == 2:
        return Interval(shape.items[0], shape.items[1], False, False)
    return _described(shape) if isinstance(shape, Relation) and "=" not in shape.signs else shape


def _described(relation: Relation) -> Shape:
    """The numbers of x < a, a < x < b or |x| < a; the relation itself in any other form."""
    parts, signs = relation.parts, relation.signs
    names = [is_name(part) for part in parts]
    if len(parts) == 2 and (absolute := _ABSOLUTE.fullmatch(parts[0])) and signs[0] != "≠":
        return _absolute(absolute[1], parts[1], signs[0])
    if sorted(names) == [False, True]:
        sign = signs[0] if names[0] else MIRROR[signs[0]]
        return _half_line(read_shape(parts[names.index(False)]), sign)
    if names != [False, True, False]:
        return relation
    if set(signs) <= set(">≥"):
        parts, signs = parts[::-1], tuple(MIRROR[sign] for sign in signs[::-1])
    if not set(signs) <= set("<≤"):
        return relation
    return Interval(read_shape(parts[0]), read_shape(parts[2]), signs[0] == "≤", signs[1] == "≤")


def _half_line(bound: Shape, sign: str) -> Shape:
    below = Interval(Scalar("-\\infty"), bound, False, sign == "≤")
    above = Interval(bound, Scalar("\\infty"), sign == "≥", False)
    if sign == "≠":
        return Union((below, above))
    return below if sign in "<≤" else above


def _absolute(name: str, bound: str, sign: str) -> Shape:
    """|x| < b lies between −b and b, |x| > b outside."""
    negative = f"-{bound}" if parse_number(bound) else f"-({bound})"
    if sign in "<≤":
        return as_set(Relation((negative, name, bound), (sign, sign)))
    outside = (Relation((name, negative), (MIRROR[sign],)), Relation((name, bound), (sign,)))
    return Union(tuple(as_set(part) for part in outside))


def _joined(shape: Conditions) -> Shape:
    """Conditions on one number as a set; themselves where their ends are no plain numbers.

    All hold if they are joined by "and" or one is a ≠, and two half-lines hold together if they
    overlap; half-lines that do not ("x < 1, x > 3") are the parts of a union.
    """
    parts = [as_sets((item,)) for item in shape.items]
    ends = [[end for end in map(_ends, part) if end] for part in parts]
    names = set(map(bounded_name, shape.items))
    if len(names) > 1 or list(map(len, parts)) != list(map(len, ends)):
        return shape
    common = reduce(_common, ends)
    all_hold = shape.all_hold or any("≠" in item.signs for item in shape.items)
    if common and (all_hold or len(parts) == 2):
        found = tuple(map(_interval, sorted(common)))
        return found[0] if len(found) == 1 else Union(found)
    return shape if common or all_hold else Union(tuple(chain(*parts)))


def _common(first: "list[_Ends]", second: "list[_Ends]") -> "list[_Ends]":
    return [both for a in first for b in second if (both := _overlap(a, b)) is not None]


def _overlap(a: "_Ends", b: "_Ends") -> "_Ends | None":
    low, high = max(a[:2], b[:2]), min(a[2:], b[2:])
    return _Ends(*low, *high) if low < high else None


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
    """Tuples that compare: the interval has a number if (low, low_open) < (high, high_closed)."""

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
        if joined and end[:2] <= joined[-1][2:]:  # they touch
            joined[-1] = _Ends(*joined[-1][:2], *max(joined[-1][2:], end[2:]))
        else:
            joined.append(end)
    return list(map(_interval, joined))


def _interval(ends: _Ends) -> Interval:
    return Interval(_scalar(ends.low), _scalar(ends.high), not ends.low_open, ends.high_closed)


def _scalar(value: Fraction | float) -> Scalar:
    if isinstance(value, float):
        return Scalar("\\infty" if value > 0 else "-\\infty")
    return Scalar(str(value))
