"""Comparing two formulas by their values, to 60 digits, at several points.

Two different short formulas do not agree to 45 digits by chance, so agreement is taken as equality.
A difference that vanishes as digits are added is rounding, one that stays is real.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
from mpmath import mp, mpc, mpf

from distill_jax.answers.expression import Node, kinds, names
from distill_jax.answers.operations import (
    CONSTANTS,
    MAX_BITS,
    MAX_POWER_OF_TEN,
    OPERATIONS,
    NoValue,
    TooLarge,
    Value,
    size,
)

DIGITS = 60
CONSTANT_DIGITS = 200  # of formulas without variables: 1 and tanh(100) differ in the 87th
MAX_RESOLVED = 20_000  # digits; beyond, what agrees so far stays undecided
_SPARE = 15  # digits that rounding may spoil
_POINTS = (
    "0.7390851332 1.6449340668 2.9316040913 0.3678794412 4.1231056256 1.2020569032"
    " -0.5772156649 -1.3247179572 -2.6651441427 5.4365636569"
).split()
# Where |x − 10| and 10 − x part. A formula may be too large there, which then decides nothing.
# The second and third lie beyond the constants in the formula.
_FAR = ["17.3205080757"]
_TOO_FAR = 12
_WHOLE = [str(n) for n in range(2, 11)]
_FAR_WHOLE = ["13", "17", "30"]
_BOTH_ENDS = ["4", "-3", "7", "0.5"]  # floor and ceil - 1 differ at whole numbers alone
_STEPS = {"floor", "ceil"}
_COUNTS = set("nmkN")
_ENOUGH = 3


Point = dict[str, str]
Equal = Callable[[list[Value], list[Value]], bool]
_CANCELLING = ("+", "-", "floor", "ceil")


def same_values(first: Node, second: Node) -> bool | None:
    """Whether two formulas have the same value wherever both have one; None where few points do.

    Of two constants, one with a value and one without are different.

    Raises:
        TooLarge: values beyond the caps.
    """
    if not names(first) and not names(second):
        if (_constant(first) is None) != (_constant(second) is None):
            return False
    return _compare([first], [second], lambda a, b: _equal(a[0], b[0]))


def same_equations(
    left: tuple[Node, Node], right: tuple[Node, Node], positive: bool = False
) -> bool | None:
    """Whether l₁ − r₁ is a constant multiple of l₂ − r₂; positive: by a factor above 0.

    Raises:
        TooLarge: values beyond the caps.
    """
    factors: list[Value] = []

    def proportional(a: list[Value], b: list[Value]) -> bool:
        x, y = a[0] - a[1], b[0] - b[1]
        if _zero(x, a) or _zero(y, b):
            return _zero(x, a) and _zero(y, b)
        factors.append(x / y)
        ratio = factors[-1]
        if positive and not (isinstance(ratio, mpf) and ratio > 0):
            return False
        return bool(abs(ratio - factors[0]) <= _tolerance() * abs(ratio))

    found = _compare(list(left), list(right), proportional)
    return None if found and not factors else found


def near(node: Node, value: Fraction, error: Fraction) -> bool:
    """Whether a constant is real and within a relative error of a value."""
    with mp.workdps(DIGITS):
        if (found := _real_constant(node)) is None:
            return False
        wanted = mpf(value.numerator) / value.denominator
        return bool(abs(found - wanted) <= abs(found) * error.numerator / error.denominator)


def rounds_to(node: Node, decimal: Fraction, decimals: int) -> bool:
    """Whether a real constant without a finite decimal form rounds, or is cut off, to a decimal."""
    with mp.workdps(DIGITS):
        if (value := _real_constant(node)) is None:
            return False
        scaled = value * mpf(10) ** 30
        if abs(scaled - mpmath.nint(scaled)) < mpf(10) ** -15:
            return False
        shifted = abs(value) * 10**decimals
        wanted = abs(decimal) * 10**decimals
        fits = wanted in (int(mpmath.floor(shifted)), int(mpmath.nint(shifted)))
        return fits and (value < 0) == (decimal < 0)


def _real_constant(node: Node) -> Value | None:
    value = None if names(node) else _constant(node)
    return None if value is None or isinstance(value, mpc) or mpmath.isinf(value) else value


def _constant(node: Node) -> Value | None:
    try:
        return _evaluate([node], {}, True, DIGITS)[0][0]
    except NoValue:
        return None


def _compare(first: list[Node], second: list[Node], equal: Equal) -> bool | None:
    nodes = first + second
    variables = sorted(set().union(*(names(node) for node in nodes)))
    used = set().union(*(kinds(node) for node in nodes))
    if not variables:
        return _all_agree(first, second, [{}], equal)
    counting = set(variables) <= _COUNTS  # n stands for whole numbers, if it must
    beyond = min(1 + max(map(_greatest, nodes)), 10.0**6)
    whole = [*_WHOLE, *_FAR_WHOLE, str(int(41 + beyond))]
    if used & {"factorial", "factorial2", "binom"} or (counting and used & _STEPS):
        return _all_agree(first, second, _points(variables, whole), equal)
    far = [*_FAR, f"-{2.5 * beyond + 39.1227766017}", f"{3.1 * beyond + 268.7281828459}"]
    values = [*_POINTS, *far, *(_BOTH_ENDS if used & _STEPS else ())]
    found = _all_agree(first, second, _points(variables, values), equal)
    if found is None and counting:  # (-1)^n
        found = _all_agree(first, second, _points(variables, whole), equal)
    return found


def _greatest(node: Node) -> float:
    """The greatest number in a tree."""
    own = float(node.text) if node.kind == "number" and len(node.text) < 12 else 0.0
    return max([own, *map(_greatest, node.children)])


def _all_agree(
    first: list[Node], second: list[Node], points: Sequence[Point], equal: Equal
) -> bool | None:
    compared, needed = 0, _ENOUGH if points[0] else 1
    imaginary = any("i" in kinds(node) for node in first + second) or needed == 1
    for point in points:
        try:
            if not _agree(first, second, point, imaginary, equal):
                return False
        except NoValue:
            continue
        except TooLarge:
            if all(abs(float(value)) < _TOO_FAR for value in point.values()):
                raise
            continue
        compared += 1
    return True if compared >= needed else None


def _agree(
    first: list[Node], second: list[Node], point: Point, imaginary: bool, equal: Equal
) -> bool:
    """Evaluates both sides, with more digits until the comparison does not depend on them."""
    cut = len(first)
    start = DIGITS if point else CONSTANT_DIGITS
    digits, before = start, None
    while True:
        values, lost = _evaluate([*first, *second], point, imaginary, digits)
        with mp.workdps(digits):
            same = equal(values[:cut], values[cut:])
        if same:  # to be sure of the last digit of whole numbers
            lost = max(lost, *(int(size(value)) for value in values))
        needed = start + int(lost * 0.302)
        # Rounding noise shrinks as digits are added: more digits are not worth it.
        if digits >= needed or (before is not None and lost > before + 16):
            break
        if needed > MAX_RESOLVED:
            raise TooLarge(f"more than {MAX_RESOLVED} digits would be needed")
        digits, before = needed, lost
    if same:
        return True
    # What is zero shows as noise that shrinks as digits are added.
    finer, _ = _evaluate([*first, *second], point, imaginary, 3 * digits)
    with mp.workdps(3 * digits):
        shrunk = mpf(10) ** -digits
        for k, (coarse, fine) in enumerate(zip(values, finer, strict=True)):
            if mpmath.isfinite(coarse) and abs(fine) <= shrunk * abs(coarse):
                finer[k] = mpf(0)
        return equal(finer[:cut], finer[cut:])


def _evaluate(
    nodes: list[Node], point: Point, imaginary: bool, digits: int
) -> tuple[list[Value], int]:
    """Values at so many digits, and how many bits sums lost on the way."""
    with mp.workdps(digits):
        evaluation = _Evaluation(point, imaginary)
        return [evaluation.value(node) for node in nodes], evaluation.lost


def _points(variables: Sequence[str], values: Sequence[str]) -> list[Point]:
    # Each variable steps through the values by its own stride, so no two move together; the number
    # of values (13 or 17) is prime, so that every stride visits all.
    return [
        {
            name: values[(shift * (1 + 2 * (k % 3)) + 3 * k) % len(values)]
            for k, name in enumerate(variables)
        }
        for shift in range(len(values))
    ]


def _tolerance() -> mpf:
    return mpf(10) ** (_SPARE - mp.dps)


def _equal(x: Value, y: Value) -> bool:
    if x == y:
        return True
    if not (mpmath.isfinite(x) and mpmath.isfinite(y)):
        return False
    return bool(abs(x - y) <= _tolerance() * max(abs(x), abs(y)))


def _zero(difference: Value, terms: list[Value]) -> bool:
    return bool(abs(difference) <= _tolerance() * max(abs(term) for term in terms))


def _checked(value: Value) -> Value:
    if isinstance(value, mpc) and value.imag == 0:
        value = value.real
    if mpmath.isnan(value):
        raise NoValue("not a number")
    if abs(size(value)) > MAX_BITS:
        raise TooLarge(f"beyond 10^±{MAX_POWER_OF_TEN}")
    return value


class _Evaluation:
    """Values of trees at one point, at the precision in force."""

    def __init__(self, point: Point, imaginary: bool):
        self.point, self.imaginary = point, imaginary
        self.lost = 0

    def value(self, node: Node) -> Value:
        if node.kind == "number":
            return _checked(mpf(node.text))
        if node.kind == "name":
            return mpf(self.point[node.text])
        if node.kind in CONSTANTS:
            return CONSTANTS[node.kind]()
        arguments = [self.value(child) for child in node.children]
        try:
            value = _checked(OPERATIONS[node.kind](*arguments))
        except (ZeroDivisionError, ValueError, TypeError) as error:
            raise NoValue(str(error)) from None
        if not self.imaginary and isinstance(value, mpc):
            raise NoValue("not real")
        if node.kind in _CANCELLING:
            sizes = [int(size(argument)) for argument in arguments if argument != 0]
            # Of the larger term by cancelling, of the smaller one by being absorbed.
            least = min([int(size(value)), *sizes])
            self.lost = max(self.lost, max(sizes, default=0) - least)
        return value
