r"""The outer form of an answer: one value, a tuple, set, list, interval, relation, matrix, words, …

`reading.py` makes them of text, `compare.py` compares them.
"""

from dataclasses import dataclass, field

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
    "brackets" (as Python prints lists: a tuple, but beside a list in any order)."""

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
    """Inequalities beside each other, joined by a comma, or by "and" (all of them hold)."""

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

EMPTY = Sequence("set", ())
