"""math-verify, for formulas that `expression.py` does not read; in worker processes alone.

Only its LaTeX reader is used: its reader of plain expressions evaluates them as Python. Its own
time limit needs SIGALRM and is off; the worker has one.
"""

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic
from sympy.core.function import AppliedUndef

_LATEX = [LatexExtractionConfig()]
_DECIMALS = 12  # its default, 6, takes 1e-20 and 1e-21 for equal


def same(first: str, second: str) -> bool | None:
    """Whether math-verify finds them equal; None where it cannot read one, or is of two minds."""
    a, b = _parse(first), _parse(second)
    if not a or not b:
        return None
    # It is not symmetric.
    found = {_verify(a, b), _verify(b, a)}
    if found == {False} and not all(_is_closed(value) for value in (*a, *b)):
        return None  # it finds no proof of equality, which proves nothing where variables are left
    return found.pop() if len(found) == 1 else None


def _is_closed(value: object) -> bool:
    return isinstance(value, Basic) and not value.free_symbols and not value.atoms(AppliedUndef)


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
