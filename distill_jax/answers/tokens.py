"""The lexer, and the tokens of a formula: its signs and the names that mean something in it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_TOKENS = 600

_FORMULA = re.compile(
    r"(?P<skip>\s+)|(?P<word>[A-Za-z]+)"
    r"|(?P<sign>\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\\[{}|]|!!|[^\sA-Za-z\d])"
)
CONSTANTS = {"\\pi": "pi", "pi": "pi", "e": "e", "i": "i", "\\infty": "inf", "oo": "inf"}
CONSTANTS |= {"inf": "inf", "infinity": "inf", "Infinity": "inf"}
TRIG = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
FUNCTIONS = {name: name for name in TRIG}
FUNCTIONS |= {f"arc{name}": f"a{name}" for name in TRIG[:6]}
FUNCTIONS |= {f"a{name}": f"a{name}" for name in TRIG}
FUNCTIONS |= {"exp": "exp", "ln": "ln", "log": "log", "lg": "lg", "sqrt": "sqrt", "cbrt": "cbrt"}
FUNCTIONS |= {"abs": "abs", "Abs": "abs", "floor": "floor", "ceil": "ceil", "ceiling": "ceil"}
FUNCTIONS |= {"factorial": "factorial", "Re": "re", "Im": "im", "re": "re", "im": "im"}
OF_TWO = {"binom": "binom", "binomial": "binom", "gcd": "gcd", "lcm": "lcm", "max": "max"}
OF_TWO |= {"min": "min", "Fraction": "/", "Rational": "/", "Pow": "^", "root": "root"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon"
    " phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell".split()
)
_ASCII_NAMES = sorted(
    {*FUNCTIONS, *OF_TWO, *CONSTANTS, *GREEK} - {"e", "i", "\\pi", "\\infty"}, key=len
)[::-1]
_NO_PRODUCT = frozenset(
    "cis th st nd rd in of on at the for per and are was has is it to by times total left most"
    " least mod each more less".split()
)


class Unreadable(Exception):
    """The formula has no reading here, or several; the message says why."""


class Ambiguous(Unreadable):
    """The formula has several readings."""


class Token(NamedTuple):
    """A piece of a text: its kind, its text (signs in one spelling), and its place."""

    kind: str
    text: str
    start: int
    end: int


def lex(text: str, kinds: re.Pattern[str]) -> Iterator[Token]:
    """The tokens of a text in one pass, without those of kind `skip`.

    The pattern matches everywhere; the name of its group is the token's kind.
    """
    for match in kinds.finditer(text):
        if match.lastgroup is not None and match.lastgroup != "skip":
            yield Token(match.lastgroup, match[match.lastgroup], *match.span())


def tokens_of(text: str) -> list[str]:
    """The signs of a tidy formula; runs of letters are taken apart.

    Raises:
        Unreadable: a word that is not known, or more than MAX_TOKENS signs.
    """
    text = text.replace("**", "^")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    if re.search(r"\d[eE][+-]?\d", text):
        raise Ambiguous("1e-5 is a power of ten or a product with e")
    found: list[str] = []
    for token in lex(text, _FORMULA):
        found += _split_word(token.text) if token.kind == "word" else [token.text]
        if len(found) > MAX_TOKENS:
            raise Unreadable(f"more than {MAX_TOKENS} signs")
    return found


def _split_word(word: str) -> list[str]:
    """Known names first, then single letters: "xsin" is x and sin, "ab" a and b."""
    if len(word) > 12 or word.lower() in _NO_PRODUCT:
        raise Unreadable(f"the word {word[:20]!r}")
    parts: list[str] = []
    while word:
        known = next((name for name in _ASCII_NAMES if word.startswith(name)), word[0])
        # "\\sigma" and "sigma" are one name.
        parts.append("\\" + known if known in GREEK else known)
        word = word[len(known) :]
    # "abcd" is a product, "apples" is none.
    if sum(len(part) == 1 for part in parts) > 4:
        raise Unreadable("a word")
    return parts
