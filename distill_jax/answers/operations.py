"""The operations of a formula on values, with caps: what would be too large is not computed."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
from mpmath import mp, mpc, mpf

from distill_jax.answers.tokens import TRIG

MAX_POWER_OF_TEN = 100_000
MAX_BITS = int(MAX_POWER_OF_TEN * 3.33)
Value = Any  # mpf or mpc


class TooLarge(Exception):
    """A value is beyond 10^±MAX_POWER_OF_TEN, or too large to tell from its neighbour."""


class NoValue(Exception):
    """No finite value here: a pole, or a value that is not real where it should be."""


def _power(base: Value, exponent: Value) -> Value:
    if base != 0 and mpmath.isfinite(base) and mpmath.isfinite(exponent):
        if mpmath.mag(exponent) > 60:
            raise TooLarge("an exponent beyond 2^60")
        if abs(mpmath.re(exponent)) * abs(mpmath.log(abs(base), 2)) > MAX_BITS:
            raise TooLarge(f"beyond 10^±{MAX_POWER_OF_TEN}")
    return mpmath.power(base, exponent)


def _root(base: Value, index: Value) -> Value:
    odd = mpmath.isint(index) and int(index) % 2 == 1
    if odd and isinstance(base, mpf) and base < 0:
        return -mpmath.root(-base, int(index))
    return _power(base, 1 / index)


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
        if size(value) > 18:
            raise TooLarge("a hyperbolic function beyond 2^18")
        return function(value)

    return checked


def size(value: Value) -> Value:
    """The power of two above a finite value; 0 for other values."""
    return mpmath.mag(value) if value != 0 and mpmath.isfinite(value) else 0


def _periodic(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def checked(value: Value) -> Value:
        if size(value) > 200:
            raise TooLarge("an angle beyond 2^200")
        result = function(value)
        # The pole of tan at π/2 is a large finite number for a rounded π.
        if size(result) > mp.prec - 20:
            raise NoValue("a pole")
        return result

    return checked


def _of_whole(function: Callable[..., int]) -> Callable[..., Value]:
    return lambda *values: mpf(function(*map(_whole, values)))


def _real(function: Callable[..., Value]) -> Callable[..., Value]:
    def checked(*values: Value) -> Value:
        if any(isinstance(value, mpc) for value in values):
            raise NoValue("an order of complex numbers")
        return function(*values)

    return checked


CONSTANTS: dict[str, Callable[[], Value]] = {
    "pi": lambda: +mp.pi,
    "e": lambda: +mp.e,
    "i": lambda: mpc(0, 1),
    "inf": lambda: mpf("inf"),
}
OPERATIONS: dict[str, Callable[..., Value]] = {
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
    "exp": lambda a: _power(mp.e, a),
    "ln": mpmath.log,
    "lg": lambda a: mpmath.log(a, 10),
    "abs": abs,
    "floor": _real(mpmath.floor),
    "ceil": _real(mpmath.ceil),
    "factorial": _factorial,
    "factorial2": _factorial2,
    "binom": _binomial,
    "gcd": _of_whole(math.gcd),
    "lcm": _of_whole(math.lcm),
    "max": _real(max),
    "min": _real(min),
    "re": mpmath.re,
    "im": mpmath.im,
    **{name: _periodic(getattr(mpmath, name)) for name in TRIG[:6]},
    **{name: _hyperbolic(getattr(mpmath, name)) for name in TRIG[6:]},
    **{f"a{name}": getattr(mpmath, f"a{name}") for name in TRIG},
}
