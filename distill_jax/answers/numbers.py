"""Written numbers as exact fractions. Nothing is evaluated; what is no plain number is None."""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 200
MAX_EXPONENT = 200

_DECIMAL = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+)?(?:\.(\d*))?")
_SCIENTIFIC = re.compile(
    r"([+-]?\d+(?:\.\d+)?)(?:[eE]|\s*(?:×|\\times|\\cdot)\s*10\^)\{?([+-]?\d+)\}?"
)
_RATIO = re.compile(r"([^/]+)/([^/]+)")
_FRAC = re.compile(r"([+-]?\s*\d*)\s*\\[dt]?frac\s*(?:\{([^{}]+)\}|(\d))\s*(?:\{([^{}]+)\}|(\d))")
_MIXED = re.compile(r"([+-]?)(\d+) (\d+)/(\d+)")
# A number, then a unit: in \text{}, or a word. "3x" is algebra, not 3 of something, so a bare
# word stands apart and is long, or is a known short unit.
_TEXT_UNIT = re.compile(r"(.*?)\s*\\(?:text|mathrm|mbox)\s*\{\s*([^{}\d\\]*)\}")
_WORD_UNIT = re.compile(r"(.*[\d.%}])(\s*)([^\W\d_][^\d\\{}^$=+*/<>()\[\]-]*)")
_SHORT_UNITS = set("mm cm m km mi ft in yd mg g kg lb lbs oz ml l s h hr hrs mph kph am pm".split())
_NO_UNITS = set("and but not mod sin cos tan log exp sqrt plus minus times over".split())
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_REPLACE = {"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\\,": " ", "\\!": "", "\\;": " "}
_REPLACE |= {"\\ ": " ", "{,}": ",", "\\$": "$", "\\%": "%", "\\left": "", "\\right": ""}
_HALVES = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}


class Number(NamedTuple):
    """An exact value with what was written behind it: "%", a unit in small letters, or ""."""

    value: Fraction
    unit: str


def tidy(text: str) -> str:
    """The answer without dollar signs, typographic variants, outer spaces and a final stop."""
    for old, new in _REPLACE.items():
        text = text.replace(old, new)
    for old, new in _HALVES.items():
        text = text.replace(old, f" {new}")
    text = text.strip().removesuffix(".").strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1]
    text = re.sub(r"^([+-]?)\s*\$\s*", r"\1", text.strip())
    return " ".join(text.split())


def parse_number(text: str) -> Number | None:
    """The number that a text writes, or None.

    Understands signs, thousands separators (, and space), decimals, a/b, \\frac, mixed numbers,
    1e6 and 3×10^5, $ before and % or words behind, million and its like.
    """
    text = tidy(text)
    if not text or len(text) > 2 * MAX_DIGITS or not any(c.isdigit() for c in text):
        return None
    value, unit = _value(text), ""
    if value is None:
        text, unit = _split_unit(text)
        value = _value(text)
    if value is None and text.endswith("%"):
        value, unit = _value(text[:-1].strip()), ("% " + unit).strip()
    first, _, rest = unit.partition(" ")
    if value is not None and first in _SCALES:
        value, unit = value * _SCALES[first], rest
    if unit == "percent":
        unit = "%"
    return None if value is None else Number(value, unit)


def _split_unit(text: str) -> tuple[str, str]:
    """(number, unit) of "10 cm"; (text, "") where no unit is seen."""
    if match := _TEXT_UNIT.fullmatch(text):
        return match[1], match[2].strip().lower()
    if match := _WORD_UNIT.fullmatch(text):
        unit = match[3].strip().lower()
        first = unit.split()[0]
        long = bool(match[2]) and len(first) > 2 and first not in _NO_UNITS
        if long or first in _SHORT_UNITS:
            return match[1], unit
    return text, ""


def _value(text: str) -> Fraction | None:
    if (plain := _decimal(text)) is not None:
        return plain
    if match := _MIXED.fullmatch(text):
        part = _divide(match[3], match[4])
        return None if part is None else _signed(match[1], Fraction(int(match[2])) + part)
    if match := _RATIO.fullmatch(text):
        return _divide(match[1].strip(), match[2].strip())
    if match := _FRAC.fullmatch(text):
        part = _divide(match[2] or match[3], match[4] or match[5])
        sign, whole = match[1][:1] if match[1][:1] in "+-" else "", match[1].strip("+- ")
        return None if part is None else _signed(sign, Fraction(int(whole or 0)) + part)
    if match := _SCIENTIFIC.fullmatch(text):
        base, power = _decimal(match[1]), match[2]
        if base is None or len(power) > 4 or abs(int(power)) > MAX_EXPONENT:
            return None
        return base * Fraction(10) ** int(power)
    return None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _divide(top: str, bottom: str) -> Fraction | None:
    left, right = _decimal(top.strip()), _decimal(bottom.strip())
    if left is None or right is None or right == 0:
        return None
    return left / right


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if not match or len(text) > MAX_DIGITS:
        return None
    whole = re.sub(r"[, ]", "", match[2] or "")
    part = match[3] or ""
    if not whole + part:
        return None
    return _signed(match[1], Fraction(int(whole + part), 10 ** len(part)))
