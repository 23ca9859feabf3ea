r"""Reading the outer form of an answer, from the outside in.

Brackets, commas and relation signs at the top level decide; what is inside stays text until it is
compared.
"""

import re
from functools import lru_cache

from distill_jax.answers.forms import WORDS, Read, read_marked, read_words
from distill_jax.answers.lists import read_enclosed, read_listed
from distill_jax.answers.numbers import parse_number, split_unit
from distill_jax.answers.shapes import Hedge, Ratio, Relation, Scalar, Shape
from distill_jax.answers.spelling import cut, outside_brackets, tidy

MAX_NESTING = 50

_SIGNS = {"=": "=", "==": "=", "<": "<", ">": ">", "<=": "≤", ">=": "≥", "!=": "≠"}
_SIGNS |= {"\\le": "≤", "\\ge": "≥", "\\ne": "≠", "\\approx": "≈", "\\in": "∈"}
_SIGN = re.compile(r"==|<=|>=|!=|[=<>]|\\(?:le|ge|ne|approx|in)(?![A-Za-z])")
_APPROXIMATELY = re.compile(
    r"^(?:approximately|approx\.?|about|roughly|around|exactly|either|both|\\approx|~)\s*", re.I
)
_LABEL = re.compile(r"[^\W\d_][^\d=<>]*\s(?:is|are|equals)\s+(.+)", re.I)
_NEGATED = re.compile(r"\b(?:not|never|nothing|none|neither|nor|cannot|hardly)\b", re.I)
_TO = re.compile(r"[\d.,\s]*\d\s*\bto\b\s*\d[\d.,]*")
_HEDGING = re.compile(
    r"\b(?:not|maybe|perhaps|possibly|probably|likely|unsure|unknown|guess|might|could|but|nor"
    r"|neither|instead|rather|except|think)\b|\?|\(or\b", re.I
)  # fmt: skip
_DIGITS = re.compile(r"[-+\d.,/]+")
_UNIT_LETTER = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:\s*\^\s*\{?\s*\d\s*\}?)?)$")


@lru_cache(maxsize=65_536)
def read_shape(text: str) -> Shape:
    """The shape of an answer, as written."""
    return _read(tidy(text), 0)


def _read(text: str, depth: int) -> Shape:
    text = _APPROXIMATELY.sub("", text.strip()).strip()
    if depth > MAX_NESTING:
        return Scalar(text)
    if (number := parse_number(text)) is not None:
        if _DIGITS.fullmatch(text):  # most answers: no unit to look for
            return Scalar(text)
        scalar = _scalar(text)
        if parse_number(scalar.formula) is None:
            return Scalar(str(number.value), number.unit)  # "5 feet 6 inches"
        return scalar

    def read(part: str) -> Shape:
        return _read(part, depth + 1)

    if match := _LABEL.fullmatch(text):
        return Hedge(text) if _NEGATED.search(text) else read(match[1])
    for form in (read_marked, read_listed, read_enclosed, _read_related):
        if (shape := form(text, read)) is not None:
            return shape
    if _TO.fullmatch(text):
        return Ratio(tuple(part.strip() for part in re.split(r"\bto\b", text)))
    if _HEDGING.search(text) and not WORDS.fullmatch(text):
        return Hedge(text)
    return read_words(text) or _scalar(text)


def _scalar(text: str) -> Scalar:
    formula, unit = split_unit(text)
    letter = _UNIT_LETTER.search(text) if unit is not None else None
    return Scalar(formula, unit, letter[1].strip() if letter else "")


def _read_related(text: str, read: Read) -> Shape | None:
    """An equation or inequality; None without a relation sign outside brackets."""
    matches = outside_brackets(_SIGN, text)
    parts = [part.strip() for part in cut(text, matches)]
    signs = [_SIGNS[match[0]] for match in matches]
    if "∈" in signs:
        return read(parts[-1]) if signs == ["∈"] else None
    if signs == ["="] and not parts[0]:
        return read(parts[1])
    if signs and not all(parts):
        return Hedge(text)
    # x = 2/3 ≈ 0.67: what is said exactly counts.
    if signs == ["≈"] and re.search(r"\d", parts[0]):
        return read(parts[0])
    if "≈" in signs:
        kept = signs.index("≈") + 1 if len(signs) > 1 else len(parts)
        parts = parts[: max(kept, 2)]
        signs = ["=" if sign == "≈" else sign for sign in signs[: len(parts) - 1]]
    return Relation(tuple(parts), tuple(signs)) if signs else None
