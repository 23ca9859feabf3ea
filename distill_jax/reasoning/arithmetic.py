r"""Reading arithmetic in exact fractions: tokens of a text, and the value of an expression.

A grammar of its own, nothing is ever evaluated as Python. Numbers (thousands separators, decimals,
mixed numbers as 1 1/2, LaTeX's \frac), + − · / and powers, parentheses, percent, words behind
numbers as units; and limits on length, depth and size, so that time is linear in the text.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 200  # characters of one side of an equation
MAX_DEPTH = 20
MAX_DIGITS = 40  # of one number
MAX_BITS = 4096  # of a numerator or denominator

NUMBER, FRAC, SIGN, OPEN, CLOSE, EQUALS = "number", "frac", "sign", "open", "close", "equals"
PERCENT, WORD, LETTER, NEWLINE, STOP = "percent", "word", "letter", "newline", "stop"

_LEXER = re.compile(
    r"""
    (?P<item>^[^\S\n]{0,20}(?:[0-9]{1,2}[.)]|[-*•])(?=[^\S\n]))
   |(?P<skip>[^\S\n]+|[$€£&°]|\^[ ]?(?:\\circ|\{\\circ\})|\\[$,;:! ()\[\]]
        |\\(?:left|right|boxed|fbox|displaystyle|quad|qquad|mathbf)(?![A-Za-z]))
   |(?P<newline>\n|\\\\)
   |(?P<percent>\\?%)
   |\\(?:text|mathrm|mbox|textbf)\{[ ]?(?P<inner>[A-Za-z]{2,30})[ ]?\}(?:\^\{?[23]\}?)?
   |(?P<frac>\\[dt]?frac(?![A-Za-z]))
   |(?P<times>\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|[×·∗⋅]|\*(?!\*))
   |(?P<over>\\div(?![A-Za-z])|[/÷∕⁄])
   |(?P<power>\^|\*\*)
   |(?P<plus>\+)
   |(?P<minus>[-−–])
   |(?P<raised>[²³])
   |(?P<mixed>[0-9]{1,6}[ ][0-9]{1,4}/[0-9]{1,4}(?![0-9/.]))
   |(?P<number>[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
   |(?P<command>\\[A-Za-z]+|[_√])
   |(?P<word>[^\W\d_²³]+(?:/[^\W\d_²³]+)?(?:(?<=[^\W\d_²³]{2})(?:[²³]|\^\{?[23]\}?(?![0-9])))?)
   |(?P<stop>[=!<>:~]=|[=-]>|≈|≠|≤|≥|[<>])
   |(?P<equals>=)
   |(?P<open>[(\[{])
   |(?P<close>[)\]}])
   |(?P<other>.)
    """,
    re.VERBOSE | re.MULTILINE,
)
_SIGNS = {"times": "*", "over": "/", "power": "^", "plus": "+", "minus": "-"}


class Token(NamedTuple):
    """A piece of text: its kind, what it says (signs as + - * / ^), and where it stands."""

    kind: str
    text: str
    start: int
    end: int


class NotArithmeticError(ValueError):
    """The tokens are no arithmetic expression, or one too large."""


def lex(text: str) -> list[Token]:
    """The tokens of a text in one pass.

    Left out: spaces and LaTeX's spacing, signs of currency and degrees, what starts the items of a
    list.
    """
    out: list[Token] = []
    for match in _LEXER.finditer(text):
        name, found, (start, end) = match.lastgroup or "", match[0], match.span()
        if name in ("skip", "item"):
            continue
        if name in _SIGNS:
            out.append(Token(SIGN, _SIGNS[name], start, end))
        elif name == "raised":
            out.append(Token(SIGN, "^", start, start))
            out.append(Token(NUMBER, {"²": "2", "³": "3"}[found], start, end))
        elif name == "mixed":
            out += _mixed(found, start)
        elif name == "inner":
            out.append(Token(WORD, match["inner"], start, end))
        elif name == "word":
            out.append(Token(LETTER if len(found) == 1 else WORD, found, start, end))
        elif name == "stop" and found == "==":
            out.append(Token(EQUALS, "=", start, end))
        else:
            kind = {"command": LETTER, "other": STOP}.get(name, name)
            out.append(Token(kind, found, start, end))
    return out


def _mixed(found: str, start: int) -> list[Token]:
    """1 1/2 is one number; 12 3/2 is not: 12, then 3/2."""
    whole, part = found.split(" ")
    top, bottom = part.split("/")
    if 0 < int(top) < int(bottom):
        return [Token(NUMBER, found, start, start + len(found))]
    place, out = start, []
    for kind, text in ((NUMBER, whole), (SIGN, " "), (NUMBER, top), (SIGN, "/"), (NUMBER, bottom)):
        if text != " ":
            out.append(Token(kind, text, place, place + len(text)))
        place += len(text)
    return out


def number(text: str) -> Fraction:
    """The value of a number token.

    Raises:
        NotArithmeticError: it has more than MAX_DIGITS characters.
    """
    if len(text) > MAX_DIGITS:
        raise NotArithmeticError("a number too long")
    text = text.replace("{,}", "").replace(",", "")
    if " " in text:
        whole, part = text.split(" ")
        return int(whole) + Fraction(part)
    return Fraction("0" + text if text.startswith(".") else text)


def evaluate(tokens: Sequence[Token], percent: Fraction) -> Fraction:
    """The exact value of an expression.

    Args:
        tokens: of one side of an equation; words in them are units and count nothing.
        percent: what the percent sign multiplies with, 1/100 or 1.

    Raises:
        NotArithmeticError: no expression, division by zero, or beyond the limits above.
    """
    if tokens and tokens[-1].end - tokens[0].start > MAX_LENGTH:
        raise NotArithmeticError("too long")
    reader = _Reader([t for t in tokens if t.kind != WORD], percent)
    value = reader.sum(0)
    if reader.place != len(reader.tokens):
        raise NotArithmeticError("something behind the expression")
    return value


class _Reader:
    """Recursive descent; each method reads one level of precedence from `place` on."""

    def __init__(self, tokens: Sequence[Token], percent: Fraction):
        self.tokens, self.percent, self.place = tokens, percent, 0

    def _is(self, kind: str, text: str = "") -> bool:
        if self.place >= len(self.tokens):
            return False
        token = self.tokens[self.place]
        return token.kind == kind and (not text or token.text in text)

    def _take(self, kind: str, text: str = "") -> str:
        if not self._is(kind, text):
            raise NotArithmeticError(f"no {kind} at {self.place}")
        self.place += 1
        return self.tokens[self.place - 1].text

    def sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise NotArithmeticError("too deep")
        value = self._product(depth)
        while self._is(SIGN, "+-"):
            sign = 1 if self._take(SIGN) == "+" else -1
            value = _bounded(value + sign * self._product(depth))
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while True:
            if self._is(OPEN):  # 2(3+4), (1+2)(3+4)
                value = _bounded(value * self._power(depth))
            elif not self._is(SIGN, "*/"):
                return value
            elif self._take(SIGN) == "*":
                value = _bounded(value * self._signed(depth))
            else:
                value = _quotient(value, self._signed(depth))

    def _signed(self, depth: int) -> Fraction:
        # One sign alone, and no plus: ++3 is a slip of the pen, not arithmetic.
        sign = -1 if self._is(SIGN, "-") and self._take(SIGN) else 1
        return sign * self._power(depth)

    def _power(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise NotArithmeticError("too deep")
        base = self._atom(depth)
        if not self._is(SIGN, "^"):
            return base
        self._take(SIGN)
        negative = self._is(SIGN, "-") and bool(self._take(SIGN))
        exponent = self._power(depth + 1) * (-1 if negative else 1)
        if exponent.denominator != 1:
            raise NotArithmeticError("a root")
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(exponent) > MAX_BITS or abs(exponent) > MAX_BITS:
            raise NotArithmeticError("a power too large")
        if base == 0 and exponent <= 0:
            raise NotArithmeticError("a power of zero")
        return base ** int(exponent)

    def _atom(self, depth: int) -> Fraction:
        if self._is(OPEN):
            value = self._group(depth)
        elif self._is(FRAC):
            value = self._fraction(depth)
        else:
            value = number(self._take(NUMBER))
            if self._is(FRAC):  # 2\frac{1}{2}
                value += self._fraction(depth)
        if self._is(PERCENT):
            self._take(PERCENT)
            value *= self.percent
        return value

    def _group(self, depth: int) -> Fraction:
        self._take(OPEN)
        value = self.sum(depth + 1)
        self._take(CLOSE)
        return value

    def _fraction(self, depth: int) -> Fraction:
        self._take(FRAC)
        top = self._group(depth)
        return _quotient(top, self._group(depth))


def _quotient(top: Fraction, bottom: Fraction) -> Fraction:
    if bottom == 0:
        raise NotArithmeticError("division by zero")
    return _bounded(top / bottom)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotArithmeticError("too large")
    return value
