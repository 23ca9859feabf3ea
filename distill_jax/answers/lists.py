r"""Answers with several values: lists with commas, "and", "or", ±, ∪, and what brackets enclose."""

import itertools
import math
import re
from collections.abc import Iterable

from distill_jax.answers.forms import WORDS, Read, are_words
from distill_jax.answers.shapes import (
    Conditions,
    Interval,
    Matrix,
    Relation,
    Sequence,
    Shape,
    Union,
    named,
)
from distill_jax.answers.spelling import COMMA, closes, cut, outside_brackets, split_top

_AND_OR = re.compile(r"\b(?:and|or)\b", re.I)
_LIST = re.compile(COMMA.pattern + "|;")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_LETTER_U = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_DATE = re.compile(r"[A-Z][a-z]+\.? \d{1,2},? \d{4}")
_MIXED_NUMBER = re.compile(r"\s*\d+\s+and\s+\d+\s*/\s*\d+\s*")
_BRACKETS = (("\\{", "\\}"), ("⟨", "⟩"), *itertools.product("([", ")]"), ("{", "}"))


def read_listed(text: str, read: Read) -> Shape | None:
    r"""Several values next to each other; None for one value."""
    return _plus_minus(text, read) or _union(text, read) or _list(text, read)


def _plus_minus(text: str, read: Read) -> Shape | None:
    if "\\pm" not in text or "," in text:
        return None
    plus, minus = (text.replace("\\pm", a).replace("\\mp", b) for a, b in ("+-", "-+"))
    start = plus.rfind("=") + 1  # the name is the same in both
    both = (plus, plus[:start] + minus[start:])
    return Sequence("list", tuple(read(_no_plus(value)) for value in both))


def _no_plus(text: str) -> str:
    return re.sub(r"(^|[=({\[])\s*\+\s*", r"\1", text).strip()


def _union(text: str, read: Read) -> Shape | None:
    parts = split_top(text, _CUP)
    if len(parts) == 1:
        parts = _LETTER_U.split(text)
    if len(parts) == 1:
        return None
    parts[0] = re.sub(r"^\s*[a-z]\s*\\in\s*", "", parts[0])
    return Union(tuple(map(read, parts)))


def _list(text: str, read: Read) -> Shape | None:
    pieces, either = _pieces(text)
    if len(pieces) < 2:
        return None
    items = _spliced(map(read, pieces))
    relations = [item for item in items if isinstance(item, Relation) and "=" not in item.signs]
    if len(relations) == len(items) and not either:
        return Conditions(tuple(relations), re.search(r"\band\b", text, re.I) is not None)
    sets = all(isinstance(item, Interval | Union) or item in relations for item in items)
    if sets and (either or "," in text):
        return Union(tuple(items))
    return Sequence("list", tuple(_grouped(items)))


def _pieces(text: str) -> tuple[list[str], bool]:
    """(the pieces of a list, whether "or" joins some of them); none of a date or a phrase."""
    parts = [(part, _split_words(part)) for part in split_top(text, _LIST)]
    pieces = [piece for _, several in parts for piece in several if piece]
    words = are_words(text) or all(WORDS.fullmatch(piece) and len(piece) > 1 for piece in pieces)
    if _DATE.fullmatch(text) or (words and not _AND_OR.search(text)):
        return [], False
    either = any(len(several) > 1 and " or " in f" {part.lower()} " for part, several in parts)
    return pieces, either


def _split_words(part: str) -> list[str]:
    """At "and" and "or" outside brackets; "one and a half" and "2 and 1/2" are left."""
    if _MIXED_NUMBER.fullmatch(part):
        return [part.strip()]
    return [piece.strip() for piece in cut(part, outside_brackets(_AND_OR, part))]


def _spliced(items: Iterable[Shape]) -> list[Shape]:
    """ "±1, ±2" is one list."""
    found: list[Shape] = []
    for item in items:
        found += item.items if isinstance(item, Sequence) and item.kind == "list" else (item,)
    return found


def _grouped(items: list[Shape]) -> list[Shape]:
    """x=1, y=2; x=3, y=4 as two lists of (x, y), each in the order of the first."""
    names = [named(item) if isinstance(item, Relation) else "" for item in items]
    size = len(set(names))
    if not all(names) or size < 2 or size == len(names) or len(names) % size:
        return items
    groups = []
    for start in range(0, len(names), size):
        group = dict(zip(names[start : start + size], items[start : start + size], strict=True))
        if set(group) != set(names[:size]):
            return items
        groups.append(Sequence("list", tuple(group[name] for name in names[:size])))
    return list(groups)


def _brackets(text: str) -> tuple[str, str]:
    """(the pair of brackets around the whole text, what it encloses); empty without a pair."""
    for opening, closing in _BRACKETS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening):
            body = text[len(opening) : -len(closing)]
            if closes(body):
                return opening + closing, body
    return "", ""


def read_enclosed(text: str, read: Read) -> Shape | None:
    """What one pair of brackets encloses; None without such a pair."""
    pair, body = _brackets(text)
    if not pair:
        return None
    parts = split_top(body, _LIST)
    if len(parts) == 1 and pair[0] in "([{" and re.search(r"\d,\d{3}", body):
        parts = body.split(",")  # "(1,234)" is a pair
    if len(parts) == 1 and pair == "\\{\\}" and re.search(r"\\mid|\||:", body):
        return None  # set-builder
    if len(parts) == 1 and pair not in ("\\{\\}", "⟨⟩"):
        return read(body) if pair in ("()", "{}") else None
    return _sequence(pair, [part.strip() for part in parts if part.strip()], read)


def _sequence(pair: str, parts: list[str], read: Read) -> Shape:
    items = tuple(map(read, parts))
    if pair in ("\\{\\}", "{}"):
        return Sequence("set", tuple(_spliced(items)))
    if any("\\pm" in part for part in parts) and (several := _alternatives(items)):
        return several
    if pair[0] == "[" and items and all(part.startswith("[") for part in parts):
        rows = [split_top(part[1:-1], COMMA) for part in parts]
        return Matrix(tuple(tuple(read(cell.strip()) for cell in row) for row in rows))
    if len(items) == 2 and pair not in ("()", "⟨⟩"):
        return Interval(items[0], items[1], pair[0] == "[", pair[1] == "]")
    return Sequence("brackets" if pair[0] == "[" else "tuple", items)


def _alternatives(items: tuple[Shape, ...]) -> Sequence | None:
    """(3, ±4) as (3, 4) and (3, -4)."""
    choices = [i.items if isinstance(i, Sequence) and i.kind == "list" else (i,) for i in items]
    if not 1 < math.prod(map(len, choices)) <= 16:
        return None
    tuples = (Sequence("tuple", found) for found in itertools.product(*choices))
    return Sequence("list", tuple(tuples))
