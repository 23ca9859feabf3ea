r"""The outer form of an answer: one value, a tuple, set, list, interval, relation, matrix, words, …

`reading.py` makes them of text, `compare.py` compares them.
"""

import re
from dataclasses import dataclass, field

from distill_jax.answers.spelling import squeeze
from distill_jax.answers.units import Unit


@dataclass(frozen=True)
class Scalar:
    """One value: a formula, and its unit where one is written.

    letter: the unit as written where it is one letter, which may be a variable: s, or m^2.
    """

    formula: str
    unit: Unit | None = None
    letter: str = field(default="", compare=False)


def is_infinite(formula: str) -> bool:
    """Whether a formula is infinity, of either sign."""
    return formula.strip("+- ").lower() in ("\\infty", "oo", "inf", "infinity")


@dataclass(frozen=True)
class Sequence:
    """Several values. kind: "tuple" (in order), "set", "list" (as written: "1, 2", "1 or 2"),
    "brackets" (as Python prints lists: a tuple, but against a list in any order)."""

    kind: str
    items: tuple["Shape", ...]


@dataclass(frozen=True)
class Interval:
    """From low to high; closed ends belong to it. Infinity never does, however it is written."""

    low: "Shape"
    high: "Shape"
    low_closed: bool
    high_closed: bool

    def __post_init__(self) -> None:
        for end in ("low", "high"):
            shape = getattr(self, end)
            if isinstance(shape, Scalar) and is_infinite(shape.formula):
                object.__setattr__(self, f"{end}_closed", False)


@dataclass(frozen=True)
class Union:
    """Of intervals and sets."""

    parts: tuple["Shape", ...]


@dataclass(frozen=True)
class Relation:
    """parts[0] signs[0] parts[1] …, signs out of = < > ≤ ≥ ≠."""

    parts: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Conditions:
    """Several inequalities, joined by a comma, or by "and" (all of them hold)."""

    items: tuple[Relation, ...]
    all_hold: bool


@dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple["Shape", ...], ...]


@dataclass(frozen=True)
class Choice:
    """A letter of multiple choice, with its text or ""."""

    letter: str
    text: str = ""


@dataclass(frozen=True)
class Words:
    """Text in small letters, without articles and punctuation; () is the empty set."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    """a : b : …"""

    parts: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """Time of day; half is "am", "pm" or ""."""

    hour: int
    minute: int
    half: str


@dataclass(frozen=True)
class Hedge:
    """Not a plain statement ("maybe 7", "not 5"); never right."""

    text: str = field(compare=False)


Shape = (
    Scalar | Sequence | Interval | Union | Relation | Conditions | Matrix | Choice | Words | Based
    | Ratio | Clock | Hedge
)  # fmt: skip

NAMES: dict[type, str] = {
    Scalar: "a value", Sequence: "several values", Interval: "an interval", Union: "a union",
    Relation: "a relation", Matrix: "a matrix", Choice: "a choice", Words: "words",
    Conditions: "conditions", Based: "a number in a base", Ratio: "a ratio",
    Clock: "a time of day", Hedge: "a hedge",
}  # fmt: skip
EMPTY = Sequence("set", ())

_NAME = re.compile(
    r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?(?:\^\{-1\})?'*(?:\s*\([A-Za-z](?:\s*,\s*[A-Za-z])*\))?"
    r"|[A-Za-z][A-Za-z ]*|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)|P\([^()]*\)|m?\\angle ?[A-Z]+"
    r"|\|[A-Z]+\||\\(?:overline|bar|vec|hat)\{[A-Za-z]+\}|\[[A-Z]{3,}\]"
    r"|[A-Z]_\{\\triangle ?[A-Z]{3}\}"
)
_VALUES = frozenset(("\\pi", "\\infty", "pi", "e", "i", "oo"))
_GROUP = r"\s*\{((?:[^{}]|\{[^{}]*\})+)\}"
_FRACTION = re.compile(rf"\\frac{_GROUP}{_GROUP}")
MIRROR = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "=": "=", "≠": "≠"}


def is_name(text: str) -> bool:
    """Whether an equation may give a value to this text: x, x_1, f(x), (x, y), area."""
    return _NAME.fullmatch(text) is not None and text not in _VALUES


def ratio_names(text: str) -> list[str]:
    r"""The names in a : b, a/b or \frac{a}{b}; none where a part is no name."""
    fraction = _FRACTION.fullmatch(text)
    parts = [part.strip() for part in (fraction.groups() if fraction else re.split("[:/]", text))]
    return parts if len(parts) > 1 and all(map(is_name, parts)) else []


def named(relation: Relation) -> str:
    """What the equation gives a value to: x of x = 5, a:b of a/b = 2; "" if it names nothing."""
    relation = name_first(relation)
    name, rest = relation.parts[0], relation.parts[1:]
    names = [name] if is_name(name) else ratio_names(name)
    for name in names:
        letters = re.escape(re.sub(r"(?<=.)\(.*", "", name))
        pattern = rf"(?<![A-Za-z\\]){letters}(?![A-Za-z])"
        if name[0] != "(" and any(re.search(pattern, part) for part in rest):
            return ""
    return squeeze(":".join(names))


def name_first(relation: Relation) -> Relation:
    """5 = x as x = 5; a name goes before a ratio of names, and both before a value."""
    if relation.signs == ("=",):
        ranks = [2 * is_name(part) or bool(ratio_names(part)) for part in relation.parts]
        if ranks[1] > ranks[0]:
            return Relation(relation.parts[::-1], relation.signs)
    return relation


def smaller_first(relation: Relation) -> Relation:
    """a > b as b < a."""
    if relation.signs[0] in (">", "≥"):
        return Relation(relation.parts[::-1], (MIRROR[relation.signs[0]],))
    return relation


def bounded_name(relation: Relation) -> str:
    """What an inequality bounds; "" where it names nothing."""
    bare = (part.strip("| ") for part in relation.parts)
    return next((squeeze(part) for part in bare if is_name(part)), "")
