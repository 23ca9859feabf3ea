"""Comparing two formulas by their values, to 60 digits, at several points.

Two different short formulas do not agree to 45 digits by chance, so agreement is taken as equality.
A difference that vanishes as digits are added is rounding, one that stays is real.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp, mpc, mpf

from distill_jax.answers.expression import Node, kinds, names

DIGITS = 60
MAX_POWER_OF_TEN = 100_000
MAX_RESOLVED = 20_000  # digits; beyond, what agrees so far stays undecided
_MAX_BITS = int(MAX_POWER_OF_TEN * 3.33)
_SPARE = 15  # digits that rounding may spoil
_POINTS = (
    "0.7390851332 1.6449340668 2.9316040913 0.3678794412 4.1231056256 1.2020569032"
    " -0.5772156649 -1.3247179572 -2.6651441427 5.4365636569"
).split()
_INTEGER_POINTS = tuple(range(2, 12))
_ENOUGH = 3


class TooLarge(Exception):
    """A value is beyond 10^±MAX_POWER_OF_TEN, or too large to tell from its neighbour."""


class NoValue(Exception):
    """No finite value here: a pole, or a value that is not real where it should be."""


Value = Any  # mpf or mpc
Point = dict[str, str]


def same_values(first: Node, second: Node) -> bool | None:
    """Whether two formulas have the same value wherever both have one; None where few points do.

    Of two constants, one with a value and one without are different.

    Raises:
        TooLarge: values beyond the caps.
    """
    if not names(first) and not names(second) and _has_value(first) != _has_value(second):
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
    if names(node):
        return False
    with mp.workdps(DIGITS):
        try:
            (found,), _ = _evaluate([node], {}, True, DIGITS)
        except NoValue:
            return False
        if isinstance(found, mpc) or not mpmath.isfinite(found):
            return False
        wanted = mpf(value.numerator) / value.denominator
        return bool(abs(found - wanted) <= abs(found) * error.numerator / error.denominator)


def rounds_to(node: Node, decimal: Fraction, decimals: int) -> bool | None:
    """Whether a constant, rounded or cut off at so many decimals, is that decimal.

    None where the constant has a finite decimal form itself, or is not real.
    """
    if names(node):
        return None
    with mp.workdps(DIGITS):
        try:
            (value,), _ = _evaluate([node], {}, True, DIGITS)
        except NoValue:
            return None
        if isinstance(value, mpc) or not mpmath.isfinite(value):
            return None
        scaled = value * mpf(10) ** 30
        if abs(scaled - mpmath.nint(scaled)) < mpf(10) ** -15:
            return None
        shifted = abs(value) * 10**decimals
        wanted = abs(decimal) * 10**decimals
        fits = wanted in (int(mpmath.floor(shifted)), int(mpmath.nint(shifted)))
        return fits and (value < 0) == (decimal < 0)


def _has_value(node: Node) -> bool:
    try:
        _evaluate([node], {}, True, DIGITS)
    except NoValue:
        return False
    return True


def _compare(
    first: list[Node], second: list[Node], equal: Callable[[list[Value], list[Value]], bool]
) -> bool | None:
    nodes = first + second
    compared, needed = 0, _ENOUGH if any(names(node) for node in nodes) else 1
    imaginary = any("i" in kinds(node) for node in nodes) or needed == 1
    for point in _points(nodes):
        try:
            if not _agree(first, second, point, imaginary, equal):
                return False
        except NoValue:
            continue
        compared += 1
    return True if compared >= needed else None


def _agree(
    first: list[Node],
    second: list[Node],
    point: Point,
    imaginary: bool,
    equal: Callable[[list[Value], list[Value]], bool],
) -> bool:
    """Evaluates both sides, with more digits until the comparison does not depend on them."""
    cut = len(first)
    digits, before = DIGITS, None
    while True:
        values, lost = _evaluate([*first, *second], point, imaginary, digits)
        with mp.workdps(digits):
            same = equal(values[:cut], values[cut:])
        if same:  # to be sure of the last digit of whole numbers
            lost = max(lost, *(_bits(value) for value in values))
        needed = DIGITS + int(lost * 0.302)
        # Rounding noise beside a value looks ever smaller as digits are added: not worth more.
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


def _points(nodes: list[Node]) -> Iterator[Point]:
    variables = sorted(set().union(*(names(node) for node in nodes)))
    if not variables:
        yield {}
        return
    whole = set().union(*(kinds(node) for node in nodes)) & {"factorial", "factorial2", "binom"}
    values = [str(n) for n in _INTEGER_POINTS] if whole else list(_POINTS)
    for shift in range(len(values)):
        # Each variable steps through the values by its own stride, so no two move together.
        yield {
            name: values[(shift * (1 + 2 * (k % 3)) + 3 * k) % len(values)]
            for k, name in enumerate(variables)
        }


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


def _bits(value: Value) -> int:
    if value == 0 or not mpmath.isfinite(value):
        return 0
    return int(mpmath.mag(value))


def _checked(value: Value) -> Value:
    if isinstance(value, mpc) and value.imag == 0:
        value = value.real
    if mpmath.isnan(value):
        raise NoValue("not a number")
    if mpmath.isfinite(value) and value != 0 and abs(mpmath.mag(value)) > _MAX_BITS:
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
        if node.kind in _CONSTANTS:
            return _CONSTANTS[node.kind]()
        arguments = [self.value(child) for child in node.children]
        try:
            value = _checked(_OPERATIONS[node.kind](*arguments))
        except (ZeroDivisionError, ValueError, TypeError) as error:
            raise NoValue(str(error)) from None
        if not self.imaginary and isinstance(value, mpc):
            raise NoValue("not real")
        if node.kind in _CANCELLING:
            sizes = [_bits(argument) for argument in arguments if argument != 0]
            # Of the larger term by cancelling, of the smaller one by being absorbed.
            least = min([_bits(value), *sizes])
            self.lost = max(self.lost, max(sizes, default=0) - least)
        return value


def _power(base: Value, exponent: Value) -> Value:
    if base != 0 and mpmath.isfinite(base) and mpmath.isfinite(exponent):
        if mpmath.mag(exponent) > 60:
            raise TooLarge("an exponent beyond 2^60")
        if abs(mpmath.re(exponent)) * abs(mpmath.log(abs(base), 2)) > _MAX_BITS:
            raise TooLarge(f"beyond 10^±{MAX_POWER_OF_TEN}")
    return mpmath.power(base, exponent)


def _root(base: Value, index: Value) -> Value:
    odd = mpmath.isint(index) and int(index) % 2 == 1
    if odd and isinstance(base, mpf) and base < 0:
        return -mpmath.root(-base, int(index))
    return _power(base, 1 / index)


def _exp(value: Value) -> Value:
    return _power(mp.e, value)


def _whole(value: Value) -> int:
    if not mpmath.isint(value) or abs(value) > 10**15:
        raise NoValue("not a whole number")
    return int(value)


def _factorial(value: Value) -> Value:
    n = _whole(value)
    if n < 0:
        raise NoValue("factorial of a negative number")
    if n > 30_000:
        raise TooLarge(f"{n}!")
    return mpmath.factorial(n)


def _factorial2(value: Value) -> Value:
    n = _whole(value)
    if n > 60_000:
        raise TooLarge(f"{n}!!")
    return mpmath.fac2(n)


def _binomial(n: Value, k: Value) -> Value:
    top, bottom = _whole(n), _whole(k)
    if min(bottom, abs(top - bottom)) > 200_000:
        raise TooLarge(f"C({top}, {bottom})")
    return mpmath.binomial(top, bottom)


def _hyperbolic(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def checked(value: Value) -> Value:
        if mpmath.isfinite(value) and value != 0 and mpmath.mag(value) > 18:
            raise TooLarge("a hyperbolic function beyond 2^18")
        return function(value)

    return checked


def _periodic(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def checked(value: Value) -> Value:
        if mpmath.isfinite(value) and value != 0 and mpmath.mag(value) > 200:
            raise TooLarge("an angle beyond 2^200")
        result = function(value)
        # The pole of tan at π/2 is a large finite number for a rounded π.
        if mpmath.isfinite(result) and result != 0 and mpmath.mag(result) > mp.prec - 20:
            raise NoValue("a pole")
        return result

    return checked


def _gcd(*values: Value) -> Value:
    result = 0
    for value in values:
        result = math.gcd(result, _whole(value))
    return mpf(result)


def _lcm(*values: Value) -> Value:
    result = 1
    for value in values:
        result = math.lcm(result, _whole(value))
    return mpf(result)


def _real(function: Callable[..., Value]) -> Callable[..., Value]:
    def checked(*values: Value) -> Value:
        if any(isinstance(value, mpc) for value in values):
            raise NoValue("an order of complex numbers")
        return function(*values)

    return checked


_CONSTANTS: dict[str, Callable[[], Value]] = {
    "pi": lambda: +mp.pi,
    "e": lambda: +mp.e,
    "i": lambda: mpc(0, 1),
    "inf": lambda: mpf("inf"),
}
_CANCELLING = ("+", "-", "floor", "ceil")
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "neg": lambda a: -a,
    "^": _power,
    "degree": lambda a: a * mp.pi / 180,
    "hundredth": lambda a: a / 100,
    "sqrt": mpmath.sqrt,
    "cbrt": lambda a: _root(a, mpf(3)),
    "root": _root,
    "exp": _exp,
    "ln": mpmath.log,
    "lg": lambda a: mpmath.log(a, 10),
    "abs": abs,
    "floor": _real(mpmath.floor),
    "ceil": _real(mpmath.ceil),
    "factorial": _factorial,
    "factorial2": _factorial2,
    "binom": _binomial,
    "gcd": _gcd,
    "lcm": _lcm,
    "max": _real(max),
    "min": _real(min),
    "re": mpmath.re,
    "im": mpmath.im,
    **{name: _periodic(getattr(mpmath, name)) for name in ("sin", "cos", "tan", "cot", "sec")},
    "csc": _periodic(mpmath.csc),
    **{name: getattr(mpmath, name) for name in ("asin", "acos", "atan", "acot", "asec", "acsc")},
    **{name: _hyperbolic(getattr(mpmath, name)) for name in ("sinh", "cosh", "tanh", "coth")},
    **{name: getattr(mpmath, name) for name in ("asinh", "acosh", "atanh", "acoth")},
}
