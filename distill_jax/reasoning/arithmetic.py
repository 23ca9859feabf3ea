r"""Arithmetic in prose, in exact fractions: the tokens of a text and the value of an expression.

Nothing is evaluated as Python; the grammar is that of `answers.expression`. Numbers may have
thousands separators, be mixed (1 1/2) or LaTeX's \frac; words behind numbers are units. Limits on
length, depth and size keep the time linear in the text.
"""

import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate

from distill_jax.answers import tokens as lexer
from distill_jax.answers.expression import Node, Unreadable, read_tokens
from distill_jax.answers.tokens import Token

MAX_LENGTH = 200  # characters of one side of an equation
MAX_DEPTH = 20
MAX_DIGITS = 40  # of one number
MAX_BITS = 4096  # of a numerator or denominator

# The kinds of tokens are the names of the groups, but for `unit` (a word) and `other` (a stop).
_PROSE = re.compile(
    r"""
    (?P<item>^[^\S\n]{0,20}(?:[0-9]{1,2}[.)]|[-*•])(?=[^\S\n]))
   |(?P<skip>[^\S\n]+|[$€£&°]|\^[ ]?(?:\\circ|\{\\circ\})|\\[$,;:! ()\[\]]
        |\\(?:left|right|boxed|fbox|displaystyle|quad|qquad|mathbf)(?![A-Za-z]))
   |(?P<newline>\n|\\\\)
   |(?P<percent>\\?%)
   |\\(?:text|mathrm|mbox|textbf)\{[ ]?(?P<unit>[A-Za-z]{2,30})[ ]?\}(?:\^\{?[23]\}?)?
   |(?P<frac>\\[dt]?frac(?![A-Za-z]))
   |(?P<sign>\\(?:times|cdot|div)(?![A-Za-z])|\*\*|[-−–+*×·∗⋅/÷∕⁄^])
   |(?P<raised>[²³])
   |(?P<mixed>[0-9]{1,6}[ ][0-9]{1,4}/[0-9]{1,4}(?![0-9/.]))
   |(?P<number>[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
   |(?P<letter>\\[A-Za-z]+|[_√]|[^\W\d_²³](?!/?[^\W\d_²³]))
   |(?P<word>[^\W\d_²³]+(?:/[^\W\d_²³]+)?(?:(?<=[^\W\d_²³]{2})(?:[²³]|\^\{?[23]\}?(?![0-9])))?)
   |(?P<equals>==|=(?!>))
   |(?P<stop>[!<>:~]=|=>|≈|≠|≤|≥|[<>])
   |(?P<open>[(\[{])
   |(?P<close>[)\]}])
   |(?P<other>.)
    """,
    re.VERBOSE | re.MULTILINE,
)
_SIGNS = {"**": "^", "\\div": "/"} | dict.fromkeys(("\\times", "\\cdot", *"×·∗⋅"), "*")
_SIGNS |= dict.fromkeys("÷∕⁄", "/") | dict.fromkeys("−–", "-")
# No arithmetic: a plus without a left side, a second minus or percent sign, \frac12 in TeX's short
# form (its digits may be of another number in prose).
_SLIP = re.compile(r"(?:^|[-+*/^(])(?:\+|--)|%%|f(?!\()")


_SKETCH = {"percent": "%", "number": "n", "close": "n", "frac": "f"}


class NotArithmeticError(ValueError):
    """The tokens are no arithmetic expression, or one too large."""


def lex(text: str) -> list[Token]:
    """The tokens of a text in one pass.

    Signs are written + - * / ^. Skipped: spaces and LaTeX's spacing, signs of currency and
    degrees, and the marks of list items.
    """
    out: list[Token] = []
    for token in lexer.lex(text, _PROSE):
        if token.kind == "raised":
            out.append(Token("sign", "^", token.start, token.start))
            token = Token("number", {"²": "2", "³": "3"}[token.text], token.start, token.end)
        out += _mixed(token) if token.kind == "mixed" else [_named(token)]
    return [token for token in out if token.kind != "item"]


def _named(token: Token) -> Token:
    if token.kind == "sign":
        return token._replace(text=_SIGNS.get(token.text, token.text))
    return token._replace(kind={"unit": "word", "other": "stop"}.get(token.kind, token.kind))


def _mixed(token: Token) -> list[Token]:
    """1 1/2 is one number; 12 3/2 is not: 12, then 3/2."""
    pieces = list(re.finditer(r"\d+|/", token.text))
    if 0 < int(pieces[1][0]) < int(pieces[3][0]):
        return [token._replace(kind="number")]
    return [
        Token(
            "sign" if piece[0] == "/" else "number",
            piece[0],
            token.start + piece.start(),
            token.start + piece.end(),
        )
        for piece in pieces
    ]


def evaluate(tokens: Sequence[Token], percent: Fraction) -> Fraction:
    """The exact value of an expression.

    Args:
        tokens: of one side of an equation; words in them are units and are ignored.
        percent: the factor of the percent sign, 1/100 or 1.

    Raises:
        NotArithmeticError: no expression, division by zero, or beyond the limits above.
    """
    if tokens and tokens[-1].end - tokens[0].start > MAX_LENGTH:
        raise NotArithmeticError("too long")
    tokens = [token for token in tokens if token.kind != "word"]
    depths = accumulate((token.kind == "open") - (token.kind == "close") for token in tokens)
    if max(depths, default=0) > MAX_DEPTH:
        raise NotArithmeticError("too deep")
    if _SLIP.search("".join(map(_sketch, tokens))):
        raise NotArithmeticError("signs that do not fit together")
    try:
        node = read_tokens([piece for token in tokens for piece in _formula(token)])
        return _value(node, percent)
    except (Unreadable, ZeroDivisionError) as error:
        raise NotArithmeticError(str(error)) from None


def _sketch(token: Token) -> str:
    return token.text if token.kind == "sign" else _SKETCH.get(token.kind, "(")


def _formula(token: Token) -> list[str]:
    """A token as `answers.expression` reads it."""
    if token.kind == "number":
        if len(token.text) > MAX_DIGITS:
            raise NotArithmeticError("a number too long")
        whole, _, part = token.text.replace("{,}", "").replace(",", "").partition(" ")
        return ["(", whole, "+", *re.split("(/)", part), ")"] if part else [whole]
    return [{"frac": "\\frac", "percent": "%"}.get(token.kind, token.text)]


def _value(node: Node, percent: Fraction) -> Fraction:
    if node.kind == "number":
        return Fraction(node.text)
    values = [_value(child, percent) for child in node.children]
    if node.kind == "hundredth":
        return values[0] * percent
    if node.kind not in _OPERATIONS:
        raise NotArithmeticError(f"no arithmetic: {node.kind}")
    value = _OPERATIONS[node.kind](*values)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotArithmeticError("too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NotArithmeticError("a root")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size * abs(exponent) > MAX_BITS or abs(exponent) > MAX_BITS:
        raise NotArithmeticError("a power too large")
    if base == 0 and exponent <= 0:
        raise NotArithmeticError("a power of zero")
    return base ** int(exponent)


_OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
    "^": _power,
}
