"""The signs of a formula, and the names that mean something in it."""

import re

MAX_TOKENS = 600

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\\[{}|]|[A-Za-z]+|!!|[^\sA-Za-z\d])")
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


def tokens_of(text: str) -> list[str]:
    """The signs of a tidy text; runs of letters are taken apart.

    Raises:
        Unreadable: a sign or a word that is not known, or more than MAX_TOKENS signs.
    """
    text = text.replace("**", "^")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    if re.search(r"\d[eE][+-]?\d", text):
        raise Ambiguous("1e-5 is a power of ten or a product with e")
    found: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unreadable(f"cannot read {text[place : place + 10]!r}")
        token = match[1]
        found += _split_word(token) if token.isalpha() and token.isascii() else [token]
        place = match.end()
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
