"""Equations and inequalities: what they name."""

import re

from distill_jax.answers.shapes import Relation
from distill_jax.answers.spelling import squeeze

_NAME = re.compile(
    r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?(?:\^\{-1\})?'*(?:\s*\([A-Za-z](?:\s*,\s*[A-Za-z])*\))?"
    r"|[A-Za-z][A-Za-z ]*|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)|P\([^()]*\)|m?\\angle ?[A-Z]+"
    r"|\|[A-Z]+\||\\(?:overline|bar|vec|hat)\{[A-Za-z]+\}"
)
# A ratio of two names, as of two sides of a triangle: NO/BO, \\frac{a}{b}, V_1 : V_2.
_PART = r"(?:[A-Z]{1,3}'*|[A-Za-z](?:_(?:\w|\{\w+\}))?)"
_RATIO = re.compile(
    rf"\\frac\s*\{{\s*{_PART}\s*\}}\s*\{{\s*{_PART}\s*\}}|{_PART}\s*/\s*{_PART}"
    rf"|{_PART}(?:\s*:\s*{_PART})+"
)
_VALUES = frozenset(("\\pi", "\\infty", "pi", "e", "i", "oo"))


def is_name(text: str) -> bool:
    """Whether a text is what an equation may give a value to: x, x_1, f(x), (x, y), area, AB/CD."""
    if text in _VALUES:
        return False
    return _NAME.fullmatch(text) is not None or _RATIO.fullmatch(text) is not None


def named(relation: Relation) -> str:
    """What the equation gives a value to: x of x = 5; "" where nothing is named."""
    relation = name_first(relation)
    name, rest = relation.parts[0], relation.parts[1:]
    if not is_name(name):
        return ""
    letters = re.sub(r"(?<=.)\(.*", "", name)
    if letters[0] != "(" and any(
        re.search(rf"(?<![A-Za-z\\]){re.escape(letters)}(?![A-Za-z])", part) for part in rest
    ):
        return ""
    return squeeze(name)


def name_first(relation: Relation) -> Relation:
    """5 = x as x = 5."""
    if relation.signs == ("=",) and is_name(relation.parts[1]) and not is_name(relation.parts[0]):
        return Relation(relation.parts[::-1], relation.signs)
    return relation


MIRROR = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "=": "=", "≠": "≠"}


def smaller_first(relation: Relation) -> Relation:
    """a > b as b < a."""
    if relation.signs[0] in (">", "≥"):
        return Relation(relation.parts[::-1], (MIRROR[relation.signs[0]],))
    return relation


def bounded_name(relation: Relation) -> str:
    """What an inequality bounds; "" where it names nothing."""
    bare = (part.strip("| ") for part in relation.parts)
    return next((squeeze(part) for part in bare if is_name(part)), "")
