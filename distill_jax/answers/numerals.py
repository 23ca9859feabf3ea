"""Numbers alone, in digits or in words, as exact fractions; no units, and nothing is evaluated."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from distill_jax.answers.units import Unit

MAX_DIGITS = 400
MAX_EXPONENT = 400

_DECIMAL = re.compile(
    r"([+-]?)\s*(\d+|\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+)?(?:\.(\d*|\d{3}(?: \d{3})+))?"
)
_SCIENTIFIC = re.compile(
    r"([+-]?\d+(?:\.\d+)?)(?:[eE]|\s*(?:\\cdot|\*|x)\s*10\s*\^\s*)\{?\s*([+-]?\d+)\s*\}?"
)
_TEN_POWER = re.compile(r"([+-]?)10\s*\^\s*\{?\s*([+-]?\d+)\s*\}?")
_RATIO = re.compile(r"([^/]+)/([^/]+)")
_FRAC = re.compile(r"([+-]?)\s*(\d*)\s*\\frac\s*(?:\{([^{}]+)\}|(\d))\s*(?:\{([^{}]+)\}|(\d))")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s+(?:and\s+)?(\d+)\s*/\s*(\d+)")
_PYTHON = re.compile(r"(?:Fraction|Rational)\(\s*([+-]?\d+)\s*,\s*(\d+)\s*\)")
_PERIOD = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_DOTS = re.compile(r"([+-]?)(\d*)\.(\d+?)\s*(?:\.\.\.|\\ldots)")
_REPEATED = re.compile(r"(\d*?)(\d{1,6}?)\2{2,}")


class Number(NamedTuple):
    """An exact value, its unit, and how it was written.

    Attributes:
        value: as a fraction.
        unit: None where none is written, or a noun.
        decimals: digits after the point of a plain decimal; None for every other form.
        digits: significant digits of a plain decimal.
    """

    value: Fraction
    unit: Unit | None = None
    decimals: int | None = None
    digits: int = 0


def number_alone(text: str) -> Number | None:
    """The number that a tidy text without unit writes, or None."""
    if (plain := _decimal(text)) is not None:
        return plain
    if text[:1].isalpha() and (value := spelled(text)) is not None:
        return Number(value)
    if text[-1:] not in "0123456789}]).s":  # the s of \ldots
        return None
    for pattern, read in _FORMS:
        if match := pattern.fullmatch(text):
            return read(*match.groups())
    return None


def _mixed(sign: str, whole: str, top: str, bottom: str) -> Number | None:
    part = _divide(top, bottom)
    return None if part is None else _signed(sign, int(whole or 0) + part)


def _scientific(base: str, power: str) -> Number | None:
    value = _decimal(base)
    if value is None or len(power) > 4 or abs(int(power)) > MAX_EXPONENT:
        return None
    return Number(value.value * Fraction(10) ** int(power))


def _quotient(top: str, bottom: str) -> Number | None:
    value = _divide(_unwrap(top), _unwrap(bottom))
    return None if value is None else Number(value)


def _periodic(sign: str, whole: str, part: str, period: str) -> Number:
    nines = 10 ** len(period) - 1
    tail = Fraction(int(period), nines * 10 ** len(part))
    return _signed(sign, Fraction(int(whole + part or "0"), 10 ** len(part)) + tail)


def _dots(sign: str, whole: str, part: str) -> Number | None:
    if repeated := _REPEATED.fullmatch(part):
        return _periodic(sign, whole, repeated[1], repeated[2])
    return _decimal(f"{sign}{whole}.{part}")


# The first form that matches decides, even that the text is no number.
_FORMS: list[tuple[re.Pattern[str], Callable[..., Number | None]]] = [
    (_MIXED, _mixed),
    (_RATIO, _quotient),
    (_FRAC, lambda sign, whole, a, b, c, d: _mixed(sign, whole, a or b, c or d)),
    (_SCIENTIFIC, _scientific),
    (_TEN_POWER, lambda sign, power: _scientific(sign + "1", power)),
    (_PYTHON, _quotient),
    (_PERIOD, lambda sign, whole, part, a, b: _periodic(sign, whole, part, a or b)),
    (_DOTS, _dots),
]


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_UNITS = {word: value for value, word in enumerate(_SMALL)}
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_TENS = {word: 10 * value for value, word in enumerate(_TEN_WORDS, start=2)}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "quarter": 4} | {
    word: value
    for value, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split(), 3)
}
_SIGNS = {"negative": -1, "minus": -1}
_VALUES = _UNITS | _TENS
_KINDS = {word: "t" if value > 9 else "u" if value else "z" for word, value in _UNITS.items()}
_KINDS |= dict.fromkeys(_TENS, "d") | dict.fromkeys(SCALES, "s") | {"hundred": "h"}
_HUNDREDS = re.compile(r"(?:uh)?(?:z|t|du?|u)|uh")
# Words that change the value of a number before them, so that they are no counted things.
NUMERAL_WORDS = frozenset(
    {*_UNITS, *_TENS, *SCALES, *_PARTS, *(f"{word}s" for word in (*_PARTS, *SCALES)), *_SIGNS}
    | {"dozen", "dozens", "score", "hundredth", "hundredths", "thousandth", "thousandths"}
)


def spelled(text: str) -> Fraction | None:
    """The value of a number written in words alone, or None."""
    words = re.split(r"[\s-]+", text.lower())
    if len(words) == 2 and words[0] == "a" and words[1] in SCALES:
        return Fraction(SCALES[words[1]])
    sign = 1
    if words[0] in _SIGNS:
        sign, words = -1, words[1:]
    if not words or not set(words) <= NUMERAL_WORDS | {"and", "a", "an"}:
        return None
    bottom = _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))
    if bottom is not None:
        top = 1 if words[:-1] in (["a"], ["an"]) else _whole(words[:-1])
        return None if top is None else sign * Fraction(top, bottom)
    value = _whole(words)
    return None if value is None else Fraction(sign * value)


def _whole(words: list[str]) -> int | None:
    """A whole number; None for anything else, such as "five seven"."""
    if not words or "and" in (words[0], words[-1]):
        return None
    words = [word for word in words if word != "and"]
    kinds = "".join(_KINDS.get(word, "?") for word in words)
    total, place, scale = 0, 0, max(SCALES.values()) * 10
    for group in re.finditer(r"([^s]*)(s?)", kinds):  # "three hundred two" "thousand" "five"
        if not group[0]:
            continue
        value = 0
        for word in words[place : place + len(group[1])]:
            value = value * 100 if word == "hundred" else value + _VALUES.get(word, 0)
        place += len(group[0])
        if not _HUNDREDS.fullmatch(group[1]):
            return None
        if group[2]:
            if value == 0 or SCALES[words[place - 1]] >= scale:
                return None
            scale = SCALES[words[place - 1]]
        total += value * (scale if group[2] else 1)
    return total


def _unwrap(text: str) -> str:
    text = text.strip()
    inner = text[1:-1]
    if text[:1] == "(" and text[-1:] == ")" and "(" not in inner and ")" not in inner:
        return inner
    return text


def _signed(sign: str, value: Fraction) -> Number:
    return Number(-value if sign == "-" else value)


def _divide(top: str, bottom: str) -> Fraction | None:
    left, right = _decimal(top.strip()), _decimal(bottom.strip())
    if left is None or right is None or right.value == 0:
        return None
    return left.value / right.value


def _decimal(text: str) -> Number | None:
    match = _DECIMAL.fullmatch(text)
    if not match or len(text) > MAX_DIGITS:
        return None
    whole = (match[2] or "").replace(",", "").replace(" ", "")
    part = (match[3] or "").replace(" ", "")
    if not whole + part:
        return None
    value = Fraction(int(whole + part), 10 ** len(part))
    if match[1] == "-":
        value = -value
    digits = len((whole + part).lstrip("0"))
    return Number(value, None, len(part) if part else None, digits)
