"""Comparing two shapes by the policy of the README.

What needs algebra is asked of a judge: in the caller's process the judge declines by raising
`NeedsAlgebra`, in a worker it computes. Everything else is decided here, exactly.
"""

import re
from collections.abc import Callable

from distill_jax.answers.ranges import as_set, as_sets, is_merged
from distill_jax.answers.reading import read_shape
from distill_jax.answers.shapes import (
    NAMES,
    Based,
    Choice,
    Clock,
    Conditions,
    Hedge,
    Interval,
    Matrix,
    Ratio,
    Relation,
    Scalar,
    Sequence,
    Shape,
    Union,
    Words,
    bounded_name,
    name_first,
    named,
    smaller_first,
)
from distill_jax.answers.single import (
    RIGHT,
    UNDECIDED,
    WRONG,
    Finding,
    Judge,
    SingleComparison,
    as_ratio,
    together,
)

MAX_ITEMS = 30
MAX_COMPARISONS = 5_000  # sets in sets in sets: each level multiplies
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+")
# A formula with these may have any form once it is worked out.
_OPERATION = re.compile(r"\\(?:setminus|cap|cup|mathbb|mid|begin|forall|backslash)(?![A-Za-z])")


def compare(gold: str, predicted: str, judge: Judge) -> Finding:
    """The verdict on two answers; symmetric if the judge is."""
    first, second = read_shape(gold), read_shape(predicted)
    return _Comparison(judge).shapes(first, second)


class _Comparison(SingleComparison):
    def __init__(self, judge: Judge):
        super().__init__(judge)
        self.done = 0

    def shapes(self, first: Shape, second: Shape) -> Finding:
        self.done += 1
        if self.done > MAX_COMPARISONS:
            return Finding(UNDECIDED, f"more than {MAX_COMPARISONS} parts to compare")
        if isinstance(first, Hedge) or isinstance(second, Hedge):
            return Finding(WRONG, "not a plain statement")
        if first == second and isinstance(first, Conditions):
            return Finding(RIGHT, "written the same")
        first, second = as_set(_one(first), conditions=True), as_set(_one(second), conditions=True)
        if isinstance(first, Conditions) or isinstance(second, Conditions):
            return self.conditions(first, second)
        if type(first).__name__ > type(second).__name__:
            first, second = second, first
        if type(first) is not type(second):
            for shape in (first, second):
                if isinstance(shape, Scalar) and _OPERATION.search(shape.formula):
                    return Finding(UNDECIDED, "sets or matrices to be computed")
        handler = _HANDLERS.get((type(first), type(second)))
        if handler is None:
            for shape, other in ((first, second), (second, first)):
                if isinstance(shape, Relation) and named(shape):
                    return self.value_and_relation(other, shape)
                if isinstance(shape, Sequence) and shape.kind == "list":
                    return self.one_and_several(other, shape)
            return Finding(WRONG, f"{NAMES[type(first)]} and {NAMES[type(second)]}")
        return handler(self, first, second)

    def conditions(self, first: Shape, second: Shape) -> Finding:
        """Those that describe no set of one number: of several variables, or with letters."""
        if not (isinstance(first, Conditions) and isinstance(second, Conditions)):
            return Finding(UNDECIDED, "conditions that are not joined")
        found = self.any_order(first.items, second.items, repeats=True)
        return found if found.verdict == RIGHT else Finding(UNDECIDED, "different conditions")

    # Several values

    def sequences(self, first: Sequence, second: Sequence) -> Finding:
        kinds = {first.kind, second.kind}
        if "set" in kinds and kinds & {"tuple", "brackets"}:
            return Finding(WRONG, "an order and a set")
        if "tuple" in kinds or kinds == {"brackets"}:
            return self.in_order(first.items, second.items)
        return self.any_order(first.items, second.items, repeats="set" not in kinds)

    def in_order(self, first: tuple[Shape, ...], second: tuple[Shape, ...]) -> Finding:
        if len(first) != len(second):
            return Finding(WRONG, "different numbers of values")
        return together([self.shapes(a, b) for a, b in zip(first, second, strict=True)])

    def any_order(
        self, first: tuple[Shape, ...], second: tuple[Shape, ...], repeats: bool
    ) -> Finding:
        if len(first) > MAX_ITEMS or len(second) > MAX_ITEMS:
            return Finding(UNDECIDED, f"more than {MAX_ITEMS} values")
        if not repeats:
            first, second = self.distinct(first), self.distinct(second)
        if len(first) != len(second):
            return Finding(WRONG, "different numbers of values")
        found = [[self.shapes(a, b) for b in second] for a in first]
        left = set(range(len(second)))
        for row in found:
            match = next((k for k in left if row[k].verdict == RIGHT), None)
            if match is None:
                return _unmatched(found)
            left.remove(match)
        return Finding(RIGHT, "all values equal")

    def distinct(self, items: tuple[Shape, ...]) -> tuple[Shape, ...]:
        kept: list[Shape] = []
        for item in items:
            if all(self.shapes(item, other).verdict != RIGHT for other in kept):
                kept.append(item)
        return tuple(kept)

    def one_and_several(self, one: Shape, several: Sequence) -> Finding:
        if several.kind in ("tuple", "brackets") or not several.items:
            return Finding(WRONG, f"{NAMES[type(one)]} and {NAMES[Sequence]}")
        # "300,200,100" may be one number or three.
        if several.kind == "list" and isinstance(one, Scalar) and _GROUPED.fullmatch(one.formula):
            parts = tuple(Scalar(part) for part in one.formula.split(","))
            return self.any_order(parts, several.items, repeats=True)
        return together([self.shapes(one, item) for item in several.items])

    def matrices(self, first: Matrix, second: Matrix) -> Finding:
        if [len(row) for row in first.rows] != [len(row) for row in second.rows]:
            return Finding(WRONG, "matrices of different form")
        pairs = zip(first.rows, second.rows, strict=True)
        return together([self.in_order(a, b) for a, b in pairs])

    def matrix_and_sequence(self, matrix: Matrix, sequence: Sequence) -> Finding:
        if sequence.kind == "set":
            return Finding(WRONG, "a matrix and a set")
        if any(len(row) != 1 for row in matrix.rows):
            return Finding(WRONG, "a matrix and a tuple")
        return self.in_order(tuple(row[0] for row in matrix.rows), sequence.items)

    # Intervals, equations, inequalities

    def intervals(self, first: Interval, second: Interval) -> Finding:
        ends = (first.low_closed, first.high_closed) == (second.low_closed, second.high_closed)
        if not ends:
            return Finding(WRONG, "different ends of an interval")
        return self.in_order((first.low, first.high), (second.low, second.high))

    def interval_and_sequence(self, interval: Interval, sequence: Sequence) -> Finding:
        if len(sequence.items) != 2 or sequence.kind == "set":
            return Finding(WRONG, "an interval and other values")
        low, high = sequence.items
        if sequence.kind == "tuple":
            return self.intervals(interval, Interval(low, high, False, False))
        # "1, 2" against [1, 2], which Python prints for a list.
        if interval.low_closed and interval.high_closed:
            return self.any_order((interval.low, interval.high), sequence.items, repeats=True)
        return Finding(WRONG, "an interval and a list")

    def unions(self, first: Union, second: Union) -> Finding:
        a, b = as_sets(first.parts), as_sets(second.parts)
        if len(a) == len(b) == 1:
            return self.shapes(a[0], b[0])
        found = self.any_order(a, b, repeats=True)
        if found.verdict == WRONG and not (is_merged(a) and is_merged(b)):
            return Finding(UNDECIDED, "unions of parts that may overlap")
        return found

    def other_and_union(self, other: Shape, union: Union) -> Finding:
        """A union of one part, once the parts that touch are one."""
        return self.unions(Union((other,)), union)

    def union_and_relation(self, relation: Relation, union: Union) -> Finding:
        described = as_set(relation)
        if isinstance(described, Union):
            return self.unions(described, union)
        return Finding(WRONG, "a union and something else")

    def set_and_relation(self, numbers: Shape, relation: Relation) -> Finding:
        if "=" in relation.signs:
            if named(relation):
                return self.value_and_relation(numbers, relation)
            return Finding(WRONG, "an equation and a set")
        described = as_set(relation)
        if isinstance(described, Relation):
            return Finding(UNDECIDED, "an inequality that is not solved")
        return self.shapes(described, numbers)

    def value_and_relation(self, value: Shape, relation: Relation) -> Finding:
        if set(relation.signs) != {"="}:
            return Finding(WRONG, "an inequality and a value")
        return together([self.shapes(side, value) for side in _values(relation)])

    def relations(self, first: Relation, second: Relation) -> Finding:
        first, second = name_first(first), name_first(second)
        if set(first.signs) != {"="} or set(second.signs) != {"="}:
            return self.inequalities(first, second)
        a, b = named(first), named(second)
        if a and a == b:
            return together([self.shapes(x, y) for x in _values(first) for y in _values(second)])
        if len(first.parts) == len(second.parts) == 2:
            return self.judge.equations(first.parts, second.parts, False)
        return Finding(UNDECIDED, "chains of equations")

    def inequalities(self, first: Relation, second: Relation) -> Finding:
        one, two = as_set(first), as_set(second)
        if not isinstance(one, Relation) and not isinstance(two, Relation):
            same_name = bounded_name(first) == bounded_name(second)
            return self.shapes(one, two) if same_name else Finding(WRONG, "different variables")
        if len(first.signs) != 1 or len(second.signs) != 1:
            return Finding(UNDECIDED, "inequalities that are not solved")
        first, second = smaller_first(first), smaller_first(second)
        if first.signs != second.signs:
            return Finding(WRONG, "different relations")
        return self.judge.equations(first.parts, second.parts, first.signs != ("≠",))


def _unmatched(found: list[list[Finding]]) -> Finding:
    """Wrong if some value is surely like none of the other side."""
    for line in (*found, *zip(*found, strict=True)):
        if all(finding.verdict == WRONG for finding in line):
            return Finding(WRONG, "a value without its like")
    doubt = [f for row in found for f in row if f.verdict == UNDECIDED]
    return doubt[0] if doubt else Finding(WRONG, "different values")


def _values(relation: Relation) -> list[Shape]:
    """What an equation's sides say: without its name, and 11:21 of a ratio is no time of day."""
    name, relation = named(relation), name_first(relation)
    sides = map(read_shape, relation.parts[1:] if name else relation.parts)
    return [as_ratio(side) if isinstance(side, Clock) and ":" in name else side for side in sides]


def _one(shape: Shape) -> Shape:
    """A row of one value, and a set of one interval, are what they hold."""
    if isinstance(shape, Matrix) and len(shape.rows) == 1 and len(shape.rows[0]) == 1:
        return shape.rows[0][0]
    if isinstance(shape, Union) and len(shape.parts) == 1:
        return shape.parts[0]
    return shape


# Keys in the alphabetic order of the classes' names.
_HANDLERS: dict[tuple[type, type], Callable[..., Finding]] = {
    (Scalar, Scalar): _Comparison.scalars,
    (Based, Based): _Comparison.bases,
    (Based, Scalar): _Comparison.base_and_scalar,
    (Ratio, Ratio): _Comparison.ratios,
    (Ratio, Scalar): _Comparison.ratio_and_scalar,
    (Clock, Clock): _Comparison.clocks,
    (Clock, Ratio): _Comparison.clock_and_ratio,
    (Clock, Scalar): _Comparison.clock_and_ratio,
    (Words, Words): _Comparison.words,
    (Scalar, Words): _Comparison.scalar_and_words,
    (Choice, Choice): _Comparison.choices,
    **{(Choice, kind): _Comparison.choice_and_other for kind in NAMES if kind.__name__ > "Choice"},
    (Sequence, Sequence): _Comparison.sequences,
    (Scalar, Sequence): _Comparison.one_and_several,
    (Matrix, Matrix): _Comparison.matrices,
    (Matrix, Sequence): _Comparison.matrix_and_sequence,
    (Interval, Interval): _Comparison.intervals,
    (Interval, Sequence): _Comparison.interval_and_sequence,
    (Union, Union): _Comparison.unions,
    (Interval, Union): _Comparison.other_and_union,
    (Sequence, Union): _Comparison.other_and_union,
    (Relation, Union): _Comparison.union_and_relation,
    (Interval, Relation): _Comparison.set_and_relation,
    (Relation, Sequence): lambda self, relation, several: self.set_and_relation(several, relation),
    (Relation, Scalar): lambda self, relation, scalar: self.value_and_relation(scalar, relation),
    (Relation, Relation): _Comparison.relations,
    (Matrix, Relation): _Comparison.value_and_relation,
    (Relation, Words): lambda self, relation, words: self.value_and_relation(words, relation),
}
