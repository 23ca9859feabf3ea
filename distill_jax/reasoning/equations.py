r"""Equations and values that a text writes: which there are, and which of them are true.

Only equations of arithmetic count (`3 + 4 = 7`, `$5 × 2 = $10`, `24 clips + 48 clips = 72 clips`, a
chain a = b = c as two, GSM8K's calculator marks `<<3+4=7>>`). Skipped, because arithmetic cannot
say whether they are true:

- a side with a letter in it, or behind it or before it (`2x = 4`, `n + 3 = 7`, `\pi`), a function,
  or words that calculate ("half of 10 = 5", "2 squared");
- numbers alone on both sides (`x: 5 = 5`, `1 hour = 60 minutes`) unless the chain calculates
  somewhere or it is in a mark;
- sums and sides that measure one quantity in several units (`1 hour + 30 minutes = 90 minutes`,
  `2 * 60 minutes = 2 hours`), and numbers of different things (`= 180 minutes = 3 hours`);
- what passes the limits of `arithmetic`.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from distill_jax.answers.units import read_unit
from distill_jax.reasoning import arithmetic
from distill_jax.reasoning.arithmetic import NotArithmeticError
from distill_jax.reasoning.chains import MAX_TEXT, Side, calculates, chains, plain_tokens, value

# Rounded decimals count as right from this many digits behind the point on.
ROUNDED_DIGITS = 2

_MARK = re.compile(r"<<([^<>]{0,200})>>")
_AFTER_MARK = re.compile(r"[ $]{0,3}([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")


def judged(text: str) -> list[bool]:
    """Whether each equation that the text writes is true; its marks are read by `judged_marks`.

    A side counts as equal when it is so exactly, in fractions; a decimal written with d ≥ 2 digits
    behind the point also when the other side rounded to d digits is that decimal (10/3 = 3.33 is
    true, 10/3 = 3.3 and 10/3 = 3 are not). With percent signs either reading will do, hundredths
    (25/100 = 25%) or the number as it stands (100 − 25 = 75%).
    """
    return [verdict for sides in chains(without_marks(text)) for verdict in _judge(sides, False)]


def judged_marks(text: str) -> list[bool]:
    """The same for the equations in calculator marks `<<…>>` alone."""
    return [v for mark in marks(text) for sides in chains(mark) for v in _judge(sides, True)]


def marks(text: str) -> list[str]:
    """The contents of the calculator marks, in the order of the text."""
    return [match[1] for match in _MARK.finditer(text[:MAX_TEXT])]


def without_marks(text: str) -> str:
    """The text as a reader sees it: `48/2 = <<48/2=24>>24` is `48/2 = 24`.

    A mark that no number follows leaves its own result.
    """
    text = text[:MAX_TEXT]

    def result(match: re.Match[str]) -> str:
        if _AFTER_MARK.match(text, match.end()):
            return ""
        return match[1].rpartition("=")[2]

    return _MARK.sub(result, text)


def mark_value(mark: str) -> Fraction | None:
    """The result in a mark, which follows its last =; None without a number there."""
    sides = [side for chain in chains(mark) for side in chain]
    return value(sides[-1]) if sides and "=" in mark else None


# --- judging -------------------------------------------------------------------------------------


def _judge(sides: Sequence[Side], marked: bool) -> list[bool]:
    """A verdict for each = between two sides that arithmetic can compare."""
    if len(sides) < 2 or not (marked or any(s.calculable and calculates(s) for s in sides)):
        return []
    out = []
    for left, right in zip(sides, sides[1:], strict=False):
        if left.calculable and right.calculable and not _other_units(left, right):
            try:
                out.append(any(_equal(left, right, p) for p in _percents(left, right)))
            except NotArithmeticError:
                continue
    return out


def _percents(left: Side, right: Side) -> list[Fraction]:
    signs = any(t.kind == "percent" for t in (*left.tokens, *right.tokens))
    return [Fraction(1, 100), Fraction(1)] if signs else [Fraction(1)]


def _equal(left: Side, right: Side, percent: Fraction) -> bool:
    values = [arithmetic.evaluate(side.tokens, percent) for side in (left, right)]
    if values[0] == values[1]:
        return True
    slack = max(_rounding(side, percent) for side in (left, right))
    return abs(values[0] - values[1]) <= slack


def _rounding(side: Side, percent: Fraction) -> Fraction:
    """Half a unit of the last digit of a decimal with enough digits; otherwise 0."""
    plain = [t for t in plain_tokens(side.tokens) if t.kind != "sign"]
    if len(plain) != 1 or plain[0].kind != "number" or len(plain_tokens(side.tokens)) > 2:
        return Fraction(0)
    digits = len(plain[0].text.partition(".")[2])
    if digits < ROUNDED_DIGITS:
        return Fraction(0)
    scale = percent if any(t.kind == "percent" for t in side.tokens) else 1
    return Fraction(1, 2 * 10**digits) * scale


def _other_units(left: Side, right: Side) -> bool:
    names = [_unit(side) for side in (left, right)]
    if not (calculates(left) or calculates(right)):
        # 50 cents = $0.50: currency signs are no tokens
        cents = "" in names and names[0].removesuffix("s") + names[1].removesuffix("s") == "cent"
        return cents or ("" not in names and names[0] != names[1])
    words = {token.text.lower() for token in (*left.tokens, *right.tokens) if token.kind == "word"}
    factors: dict[object, Fraction] = {}
    for unit in map(read_unit, sorted(words)):
        if unit is not None and factors.setdefault(unit.powers, unit.factor) != unit.factor:
            return True  # 1 hour + 30 minutes = 90 minutes
    return False


def _unit(side: Side) -> str:
    """The first of the words that end a side: "apples" of "7 apples in all"."""
    words: list[str] = []
    for token in reversed(side.tokens):
        if token.kind != "word":
            break
        words.append(token.text.lower())
    return words[-1] if words else ""
