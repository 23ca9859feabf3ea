r"""math-verify, an optional package, for the formulas with \int, \sum, \prod and \lim.

Only workers use it, and only its LaTeX reader: its reader of plain expressions evaluates them as
Python. Its own time limit needs SIGALRM and is off; the worker has one.
"""

import re
from importlib.util import find_spec
from typing import Any

# Looked up at import: a worker's confined child cannot search for packages.
INSTALLED = find_spec("math_verify") is not None
MISSING = "needs math-verify; fix: pip install -e '.[math-verify]'"

deferred = False  # True in a worker without it: there `same` raises NotLoaded

# What it reads and `expression.py` does not. It drops what it does not know (primes, dots, words)
# and adds adjacent terms, so it is asked for nothing else.
_ITS_OWN = re.compile(r"\\(?:int|sum|prod|lim)(?![A-Za-z])")
_DROPPED = re.compile(
    r"'|\\(?:ldots|boxed|prime)|\||=(?![^{}]*\})|\d\s+[\d.]|(?<![\\A-Za-z])[A-Za-z]{3}"
)
_DECIMALS = 12  # its default, 6, takes 1e-20 and 1e-21 for equal
# Checks that compile its grammars and fill its caches.
_WARM = [
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"), (r"\sum_{k=1}^{10} k", "55"),
    (r"\lim_{x\to 0} \frac{\sin x}{x}", "1"), (r"\prod_{k=1}^{3} k", "6"),
]  # fmt: skip


class NotLoaded(Exception):
    """A check needs math-verify in a process that was started without it."""


def reads(first: str, second: str) -> bool:
    """Whether a pair has an operator that math-verify alone reads, and nothing that it drops."""
    return bool(_ITS_OWN.search(first + second)) and not _DROPPED.search(f"{first} & {second}")


def prepare() -> None:
    """Imports math-verify, a second's work, and does what the first check would wait for."""
    for first, second in _WARM if INSTALLED else ():
        same(first, second)


def same(first: str, second: str) -> bool | None:
    """Whether math-verify finds them equal; None where it cannot tell or contradicts itself.

    Raises:
        NotLoaded: where `deferred`.
    """
    if deferred:
        raise NotLoaded
    a, b = _parse(first), _parse(second)
    if not a or not b:
        return None
    found = {_verify(a, b), _verify(b, a)}  # it is not symmetric
    if found == {False} and not all(_is_finite(value) for value in (*a, *b)):
        return None  # a failed proof of equality says something about finite values only
    return found.pop() if len(found) == 1 else None


def _is_finite(value: object) -> bool:
    from sympy import Basic, oo, zoo
    from sympy.core.function import AppliedUndef

    if not isinstance(value, Basic) or value.free_symbols or value.atoms(AppliedUndef):
        return False
    return not value.has(oo, -oo, zoo)


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig()]
    return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)


def _verify(gold: list[Any], predicted: list[Any]) -> bool:
    from math_verify import verify

    return verify(
        gold, predicted, float_rounding=_DECIMALS, numeric_precision=30, timeout_seconds=None
    )
