r"""Reading the outer form of an answer, from the outside in.

Brackets, commas and relation signs at the top level decide; what is inside stays text until it is
compared.
"""

import itertools
import math
import re
from collections.abc import Iterable
from functools import lru_cache

from distill_jax.answers.brackets import closes, level, split_top
from distill_jax.answers.numbers import parse_number, split_unit
from distill_jax.answers.shapes import (
    EMPTY,
    Based,
    Choice,
    Clock,
    Conditions,
    Hedge,
    Interval,
    Matrix,
    Ratio,
    Relation,
    Scalar,
    Sequence,
    Shape,
    Union,
    Words,
    named,
    ratio_names,
)
from distill_jax.answers.spelling import tidy

MAX_NESTING = 50

_NOTHING = {
    "no solution", "no solutions", "no real solution", "no real solutions", "empty set",
    "the empty set", "null set",
}  # fmt: skip
_REALS = {
    "\\mathbb{r}", "\\mathbb r", "\\r", "all real numbers", "all reals", "real numbers", "reals",
    "the set of all real numbers", "(-oo, oo)",
}  # fmt: skip
_BUILDER = re.compile(r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\||:)\s*([^|:]*)\\\}")
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
_AND_OR = re.compile(r"\b(?:and|or)\b", re.I)
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?\(?([A-Ja-j])(?:[).:]+\s*(.*)|)", re.I | re.S
)
_CHOICE_MARKED = re.compile(r"(?:option|choice)\s|\(?[A-Ja-j][).:]|\([A-Ja-j]\)$", re.I)
_CHOOSES_MORE = re.compile(
    r"^[,;/&]|^(?:or|and|is|isn't|was)\b|\([A-Ja-j]\)|(?<![^\W_])[A-J][).:]"
    r"|\b(?:wrong|false|incorrect|not|maybe|perhaps)\b[^.]"
)
_BASED = re.compile(r"\(?([+-]?[0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*(?:base\s*)?(\d+)\s*\}|(\d+))")
_BASE_WORDS = re.compile(r"([+-]?[0-9A-F]+)\s*\(?(?:in\s+)?base\s*[- ]?(\d+)\)?", re.I)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*(?:([ap])\.?\s*m\.?)?", re.I)
_HOUR = re.compile(r"(\d{1,2})\s*([ap])\.?\s*m\.?", re.I)
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{([pbBvV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}\s*[)\]]?",
    re.DOTALL,
)
_PYTHON_CALL = re.compile(
    r"(Matrix|FiniteSet|Union|Interval(?:\.open|\.Lopen|\.Ropen)?|set|Tuple)\((.*)\)"
)
_WORDS = re.compile(r"[^\W\d_][^\W\d_'-]*(?:[\s,.'-]+[^\W\d_]+)*[.!]?")
_ARTICLES = frozenset(("the", "a", "an"))
_DIGITS = re.compile(r"[-+\d.,/]+")
_UNIT_LETTER = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:\s*\^\s*\{?\s*\d\s*\}?)?)$")
_SHORT_WORDS = frozenset("no up us uk it me we he on am pm ok".split())
_CONSTANT_WORDS = frozenset("pi infinity inf oo".split())


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
    if match := _LABEL.fullmatch(text):
        return Hedge(text) if _NEGATED.search(text) else _read(match[1], depth + 1)
    for reader in (_read_marked, _read_listed, _read_enclosed, _read_related):
        shape = reader(text, depth)
        if shape is not None:
            return shape
    if _TO.fullmatch(text):
        return Ratio(tuple(part.strip() for part in re.split(r"\bto\b", text)))
    if _HEDGING.search(text) and not _WORDS.fullmatch(text):
        return Hedge(text)
    return _read_words(text) or _scalar(text)


def _scalar(text: str) -> Scalar:
    formula, unit = split_unit(text)
    letter = _UNIT_LETTER.search(text) if unit is not None else None
    return Scalar(formula, unit, letter[1].strip() if letter else "")


def _read_marked(text: str, depth: int) -> Shape | None:
    """What shows its kind by its own marks: bases, times, choices, matrices, Python's names."""
    if text.lower() in _NOTHING or text in (
        "\\emptyset",
        "\\{\\}",
        "\\{ \\}",
        "{}",
        "set()",
        "EmptySet",
    ):
        return EMPTY
    if match := _BASED.fullmatch(text) or _BASE_WORDS.fullmatch(text):
        base = next(group for group in match.groups()[1:] if group)
        if match[1].lstrip("+-")[0].isdigit() and 2 <= int(base) <= 36:
            return Based(match[1].lstrip("+").upper(), int(base))
    if match := _CLOCK.fullmatch(text):
        if int(match[1]) < 24 and int(match[2]) < 60:
            return Clock(int(match[1]), int(match[2]), f"{match[3].lower()}m" if match[3] else "")
    if text.lower() in ("noon", "midnight"):
        return Clock(12, 0, "pm" if text.lower() == "noon" else "am")
    if text.lower() in _REALS:
        return Interval(Scalar("-\\infty"), Scalar("\\infty"), False, False)
    if match := _BUILDER.fullmatch(text):
        return _read(match[1], depth + 1)
    if match := _HOUR.fullmatch(text):
        return Clock(int(match[1]), 0, f"{match[2].lower()}m")
    if _is_named_ratio(text):
        return _read_related(text, depth)
    if _CHOICE_MARKED.match(text) and (match := _CHOICE.fullmatch(text)):
        rest = tidy(match[2] or "")
        # "A) B) C)", "(B) or (C)" and "(A) is wrong" choose nothing.
        return Hedge(text) if _CHOOSES_MORE.search(rest) else Choice(match[1].upper(), rest)
    if match := _MATRIX.fullmatch(text):
        return _matrix(match[2], match[1], depth)
    if match := _PYTHON_CALL.fullmatch(text):
        return _python(match[1], match[2], depth)
    parts = split_top(text, ":")
    ratio = len(parts) > 1 and all(part.strip() for part in parts)
    name, equals, _ = text.partition("=")
    if ratio and not _WORDS.match(text) and not (equals and ratio_names(name.strip())):
        return Ratio(tuple(part.strip() for part in parts))
    return None


def _matrix(body: str, kind: str, depth: int) -> Shape | None:
    if kind in ("vmatrix", "Vmatrix"):
        return None  # a determinant
    rows = [
        row
        for row in re.split(r"\\cr(?:\s*\[[^\]]*\])?", body.replace("\\hline", ""))
        if row.strip()
    ]
    return Matrix(
        tuple(tuple(_read(cell.strip(), depth + 1) for cell in row.split("&")) for row in rows)
    )


def _python(name: str, body: str, depth: int) -> Shape | None:
    items = tuple(_read(part.strip(), depth + 1) for part in split_top(body, ","))
    if name == "Matrix":
        inner = _read(body, depth + 1)
        if isinstance(inner, Sequence) and inner.kind in ("tuple", "brackets"):
            return Matrix(tuple((item,) for item in inner.items))
        return inner
    if name == "FiniteSet":
        return Sequence("set", items)
    if name == "Union":
        return Union(items)
    if name == "Tuple":
        return Sequence("tuple", items)
    if name == "set":
        inner = _read(body, depth + 1)
        return Sequence("set", inner.items) if isinstance(inner, Sequence) else None
    if len(items) != 2:
        return None
    return Interval(
        *items, name in ("Interval", "Interval.Ropen"), name in ("Interval", "Interval.Lopen")
    )


def _read_listed(text: str, depth: int) -> Shape | None:
    r"""Several values beside each other: commas, "and", "or", ±, ∪."""
    if "\\pm" in text and "," not in text:
        plus = text.replace("\\pm", "+").replace("\\mp", "-")
        minus = text.replace("\\pm", "-").replace("\\mp", "+")
        head = re.match(r"(.*=\s*)", plus)
        lead = head[0] if head else ""
        second = lead + minus[len(lead) :] if head else minus
        return Sequence(
            "list", (_read(_no_plus(plus), depth + 1), _read(_no_plus(second), depth + 1))
        )
    parts = split_top(text, "\\cup")
    if len(parts) == 1:
        parts = re.split(r"(?<=[)\]])\s*U\s*(?=[(\[])", text)
    if len(parts) > 1:
        parts[0] = re.sub(r"^\s*[a-z]\s*\\in\s*", "", parts[0])
        return Union(tuple(_read(part, depth + 1) for part in parts))
    if _are_words(text) and not _AND_OR.search(text):
        return None
    pieces, either = [], False
    for part in split_top(text, ",;"):
        alternatives = _split_words(part)
        either |= len(alternatives) > 1 and " or " in f" {part.lower()} "
        pieces += alternatives
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < 2:
        return None
    if (
        _date(text)
        or all(_WORDS.fullmatch(p) and len(p) > 1 for p in pieces)
        and not _AND_OR.search(text)
    ):
        return None
    items = _spliced([_read(piece, depth + 1) for piece in pieces])
    relations = [item for item in items if isinstance(item, Relation) and "=" not in item.signs]
    if len(relations) == len(items) and not either:
        return Conditions(tuple(relations), bool(re.search(r"\band\b", text, re.I)))
    sets = all(isinstance(item, Interval | Union) or item in relations for item in items)
    if sets and (either or "," in text):
        return Union(tuple(items))
    return Sequence("list", tuple(_grouped(items)))


def _spliced(items: Iterable[Shape]) -> list[Shape]:
    """ "±1, ±2" is one list."""
    found: list[Shape] = []
    for item in items:
        found += item.items if isinstance(item, Sequence) and item.kind == "list" else (item,)
    return found


def _alternatives(items: tuple[Shape, ...]) -> Sequence | None:
    """(3, ±4) as (3, 4) and (3, -4)."""
    choices = [i.items if isinstance(i, Sequence) and i.kind == "list" else (i,) for i in items]
    if not 1 < math.prod(map(len, choices)) <= 16:
        return None
    tuples = (Sequence("tuple", found) for found in itertools.product(*choices))
    return Sequence("list", tuple(tuples))


def _date(text: str) -> bool:
    return re.fullmatch(r"[A-Z][a-z]+\.? \d{1,2},? \d{4}", text) is not None


def _no_plus(text: str) -> str:
    return re.sub(r"(^|[=({\[])\s*\+\s*", r"\1", text).strip()


def _split_words(part: str) -> list[str]:
    """At "and" and "or" of the top level; "one and a half" and "2 and 1/2" are left."""
    if not _AND_OR.search(part) or re.fullmatch(r"\s*\d+\s+and\s+\d+\s*/\s*\d+\s*", part):
        return [part.strip()]
    places = [m for m in _AND_OR.finditer(part) if level(part, m.start()) == 0]
    ends = [0, *(m.end() for m in places)]
    starts = [*(m.start() for m in places), len(part)]
    return [part[a:b].strip() for a, b in zip(ends, starts, strict=True)]


def _read_enclosed(text: str, depth: int) -> Shape | None:
    """What stands in one pair of brackets."""
    body = None
    for opening, closing in (
        ("\\{", "\\}"),
        ("⟨", "⟩"),
        ("(", ")"),
        ("[", "]"),
        ("{", "}"),
        ("(", "]"),
        ("[", ")"),
    ):
        if (
            text.startswith(opening)
            and text.endswith(closing)
            and len(text) >= len(opening) + len(closing)
        ):
            body = text[len(opening) : -len(closing)]
            if not closes(body):
                body = None
                continue
            break
    if body is None:
        return None
    parts = split_top(body, ",;")
    if len(parts) == 1 and opening in "([{" and re.search(r"\d,\d{3}", body):
        parts = body.split(",")  # "(1,234)" beside brackets is a pair
    if opening == "\\{" and re.search(r"\\mid|\||:", body) and len(parts) == 1:
        return None  # set-builder
    if len(parts) == 1 and opening != "\\{" and opening != "⟨":
        return _read(body, depth + 1) if opening + closing in ("()", "{}") else None
    items = tuple(_read(part.strip(), depth + 1) for part in parts if part.strip())
    if opening in ("\\{", "{"):
        return Sequence("set", tuple(_spliced(items)))
    if "\\pm" in body and (several := _alternatives(items)):
        return several
    nested = opening == "[" and items and all(part.strip().startswith("[") for part in parts)
    if nested:
        rows = [split_top(part.strip()[1:-1], ",") for part in parts]
        return Matrix(tuple(tuple(_read(cell.strip(), depth + 1) for cell in row) for row in rows))
    if len(items) == 2 and opening + closing != "()" and opening != "⟨":
        return Interval(items[0], items[1], opening == "[", closing == "]")
    return Sequence("brackets" if opening == "[" else "tuple", items)


def _top_signs(text: str) -> list[re.Match[str]]:
    """The signs of relations outside all brackets."""
    return [match for match in _SIGN.finditer(text) if level(text, match.start()) == 0]


def _is_named_ratio(text: str) -> bool:
    """a:b = 2:3, with as many parts on each side."""
    parts = {len(split_top(side, ":")) for side in text.split("=")}
    return "=" in text and len(parts) == 1 and parts != {1}


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


def _read_related(text: str, depth: int) -> Shape | None:
    cuts = _top_signs(text)
    if not cuts:
        return None
    parts = [
        text[a:b].strip()
        for a, b in zip(
            [0, *(m.end() for m in cuts)], [*(m.start() for m in cuts), len(text)], strict=True
        )
    ]
    signs = [_SIGNS[m[0]] for m in cuts]
    if "∈" in signs:
        return _read(parts[-1], depth + 1) if signs == ["∈"] else None
    if signs == ["="] and not parts[0]:
        return _read(parts[1], depth + 1)
    if not all(parts):
        return Hedge(text)
    # x = 2/3 ≈ 0.67: what is said exactly counts.
    if signs == ["≈"] and re.search(r"\d", parts[0]):
        return _read(parts[0], depth + 1)
    if "≈" in signs:
        kept = signs.index("≈") + 1 if len(signs) > 1 else len(parts)
        parts = parts[: max(kept, 2)]
        signs = ["=" if sign == "≈" else sign for sign in signs[: len(parts) - 1]]
    return Relation(tuple(parts), tuple(signs))


def _are_words(text: str) -> bool:
    """Words of two letters and more: "i, -i" is algebra."""
    letters = re.findall(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])", text)
    if _WORDS.fullmatch(text) is None or not set(letters) <= {"a", "A", "I", "s", "t"}:
        return False
    # "ab" and "a t" are products; a word has three letters, or is one of these.
    words = re.findall(r"[^\W\d_]+", text)
    return any(
        len(word) > 2 or not word.isascii() or word.lower() in _SHORT_WORDS for word in words
    )


def _read_words(text: str) -> Shape | None:
    if not _are_words(text) or len(text) < 2 or text in _CONSTANT_WORDS:
        return None
    words = [word for word in re.split(r"[\s,.!'-]+", text.lower()) if word]
    # The last word is no article: "vitamin A".
    kept = [word for word in words[:-1] if word not in _ARTICLES] + words[-1:]
    return Words(tuple(kept or words))
