r"""The judge that computes: formulas as trees of values, then math-verify for what has no tree.

Runs in worker processes alone (`worker.py`).
"""

from collections.abc import Callable
from fractions import Fraction

from distill_jax.answers import library
from distill_jax.answers.evaluate import near, rounds_to, same_equations, same_values
from distill_jax.answers.expression import Node, kinds, names, read_expression, renamed, with_log
from distill_jax.answers.numbers import parse_number
from distill_jax.answers.operations import TooLarge
from distill_jax.answers.single import (
    FLOAT_DIGITS,
    FLOAT_ERROR,
    MIN_ROUNDED_DIGITS,
    RIGHT,
    UNDECIDED,
    WRONG,
    Finding,
    Judge,
)
from distill_jax.answers.tokens import Ambiguous, Unreadable

# How programs print constants that formulas write in another way: sympy's I and E, Python's 1j.
_PRINTED = [
    (Node("name", text="I"), Node("i")),
    (Node("name", text="j"), Node("i")),
    (Node("name", text="E"), Node("e")),
]


class Algebra(Judge):
    """Compares formulas by value."""

    def values(self, first: str, second: str, factor: Fraction) -> Finding:
        """Whether first·factor and second have the same value wherever both have one."""
        try:
            nodes = _printed([_read(first), _read(second)])
        except Unreadable as error:
            return _by_library(first, second, factor, error)
        if factor != 1:
            nodes[0] = Node("*", (nodes[0], _fraction(factor)))
        elif _rounds(first, nodes[1]) or _rounds(second, nodes[0]):
            return Finding(RIGHT, "equal when rounded")
        return _decide(nodes, lambda pair: same_values(*pair))

    def equations(self, first: tuple[str, ...], second: tuple[str, ...], ordered: bool) -> Finding:
        """Whether l₁−r₁ and l₂−r₂ are the same up to a factor, above zero if ordered."""

        def same(n: list[Node]) -> bool | None:
            if any(map(names, nodes)):
                return same_equations((n[0], n[1]), (n[2], n[3]), positive=ordered)
            # Both hold, or neither does: only their sides tell them apart.
            return same_values(n[0], n[2]) and same_values(n[1], n[3])

        try:
            nodes = _printed([_read(text) for text in (*first, *second)])
        except Unreadable as error:
            return _by_library("=".join(first), "=".join(second), Fraction(1), error)
        return _decide(nodes, same)


def _read(text: str) -> Node:
    number = parse_number(text)
    return _fraction(number.value) if number and number.unit is None else read_expression(text)


def _fraction(value: Fraction) -> Node:
    top = Node("number", text=str(abs(value.numerator)))
    node = Node("/", (top, Node("number", text=str(value.denominator))))
    return Node("neg", (node,)) if value < 0 else node


def _printed(nodes: list[Node]) -> list[Node]:
    """Reads a printed name (I, E) as the constant if the other formula has that constant."""
    for name, constant in _PRINTED:
        has = [name.text in names(node) for node in nodes]
        if any(has) and not all(has) and any(constant.kind in kinds(node) for node in nodes):
            nodes = [renamed(node, name, constant) for node in nodes]
    return nodes


def _rounds(decimal: str, node: Node) -> bool:
    number = parse_number(decimal)
    if number is None or number.decimals is None or number.digits < MIN_ROUNDED_DIGITS:
        return False
    node = with_log(node, "ln")
    try:
        if FLOAT_DIGITS <= number.digits <= FLOAT_DIGITS + 3:
            return near(node, number.value, FLOAT_ERROR)
        return rounds_to(node, number.value, number.decimals)
    except TooLarge:
        return False


def _decide(nodes: list[Node], same: Callable[[list[Node]], bool | None]) -> Finding:
    bases = ("ln", "lg") if any("log" in kinds(node) for node in nodes) else ("ln",)
    try:
        found = {same([with_log(node, base) for node in nodes]) for base in bases}
    except TooLarge as error:
        return Finding(UNDECIDED, f"too large: {error}")
    if len(found) > 1:
        return Finding(UNDECIDED, "depends on the base of the logarithm")
    verdict = found.pop()
    if verdict is None:
        return Finding(UNDECIDED, "no values to compare")
    return Finding(RIGHT, "equal values") if verdict else Finding(WRONG, "different values")


def _by_library(first: str, second: str, factor: Fraction, error: Unreadable) -> Finding:
    if isinstance(error, Ambiguous):
        return Finding(UNDECIDED, str(error))
    if factor != 1 or not library.reads(first, second):
        return Finding(UNDECIDED, f"not readable: {error}")
    if not library.INSTALLED:
        return Finding(UNDECIDED, library.MISSING)
    same = library.same(first, second)
    if same is None:
        return Finding(UNDECIDED, f"not readable, nor decided by math-verify: {error}")
    return Finding(RIGHT if same else WRONG, "by math-verify")
