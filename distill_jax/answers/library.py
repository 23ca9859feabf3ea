"""math-verify, for formulas that `expression.py` does not read; in worker processes alone.

Only its LaTeX reader is used: its reader of plain expressions evaluates them as Python. Its own
time limit needs SIGALRM and is off; the worker has one.
"""

import re

from sympy import Basic, oo, zoo
from sympy.core.function import AppliedUndef

try:
    from math_verify import LatexExtractionConfig, parse, verify
except ModuleNotFoundError:  # extra: math-verify
    INSTALLED, _LATEX = False, []
else:
    INSTALLED, _LATEX = True, [LatexExtractionConfig()]

# What it reads and `expression.py` does not. It drops what it does not know (primes, dots, words)
# and adds what stands side by side, so anything else is not asked.
_ITS_OWN = re.compile(r"\\(?:int|sum|prod|lim)(?![A-Za-z])")
_DROPPED = re.compile(
    r"'|\\(?:ldots|boxed|prime)|\||=(?![^{}]*\})|\d\s+[\d.]|(?<![\\A-Za-z])[A-Za-z]{3}"
)
_DECIMALS = 12  # its default, 6, takes 1e-20 and 1e-21 for equal


def same(first: str, second: str) -> bool | None:
    """Whether math-verify finds them equal; None where it cannot tell or is not installed."""
    if (
        not INSTALLED
        or not _ITS_OWN.search(first + second)
        or _DROPPED.search(f"{first} & {second}")
    ):
        return None
    a, b = _parse(first), _parse(second)
    if not a or not b:
        return None
    found = {_verify(a, b), _verify(b, a)}  # it is not symmetric
    if found == {False} and not all(_is_finite(value) for value in (*a, *b)):
        return None  # that it finds no proof of equality proves nothing, save of finite values
    return found.pop() if len(found) == 1 else None


def _is_finite(value: object) -> bool:
    if not isinstance(value, Basic) or value.free_symbols or value.atoms(AppliedUndef):
        return False
    return not value.has(oo, -oo, zoo)


def _parse(text: str) -> list:
    return parse(
        f"${text}$",
        _LATEX,
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )


def _verify(gold: list, predicted: list) -> bool:
    return verify(
        gold, predicted, float_rounding=_DECIMALS, numeric_precision=30, timeout_seconds=None
    )
