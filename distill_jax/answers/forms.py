r"""Forms of answers that their own marks show: bases, times, choices, matrices, ratios, words.

`read_marked` and `read_words` get `read`, which reads a part of the text as an answer.
"""

import re
from collections.abc import Callable

from distill_jax.answers.shapes import (
    EMPTY,
    Based,
    Choice,
    Clock,
    Hedge,
    Interval,
    Matrix,
    Ratio,
    Scalar,
    Sequence,
    Shape,
    Union,
    Words,
    ratio_names,
)
from distill_jax.answers.spelling import COLON, COMMA, split_top, tidy

Read = Callable[[str], Shape]

WORDS = re.compile(r"[^\W\d_][^\W\d_'-]*(?:[\s,.'-]+[^\W\d_]+)*[.!]?")
_ARTICLES = frozenset(("the", "a", "an"))
_SHORT_WORDS = frozenset("no up us uk it me we he on am pm ok".split())
_CONSTANT_WORDS = frozenset("pi infinity inf oo".split())
_REALS = Interval(Scalar("-\\infty"), Scalar("\\infty"), False, False)
_FIXED: dict[str, Shape] = dict.fromkeys(
    ("no solution", "no solutions", "no real solution", "no real solutions", "empty set",
     "the empty set", "null set", "\\emptyset", "\\{\\}", "\\{ \\}", "{}", "set()", "emptyset"),
    EMPTY,
)  # fmt: skip
_FIXED |= dict.fromkeys(
    ("\\mathbb{r}", "\\mathbb r", "\\r", "all real numbers", "all reals", "real numbers", "reals",
     "the set of all real numbers", "(-oo, oo)"),
    _REALS,
)  # fmt: skip
_FIXED |= {"noon": Clock(12, 0, "pm"), "midnight": Clock(12, 0, "am")}
_CHOOSES_MORE = re.compile(
    r"^[,;/&]|^(?:or|and|is|isn't|was)\b|\([A-Ja-j]\)|(?<![^\W_])[A-J][).:]"
    r"|\b(?:wrong|false|incorrect|not|maybe|perhaps)\b[^.]"
)
_BUILDER = r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\||:)\s*([^|:]*)\\\}"
_CHOICE = (
    r"(?is)(?=(?:option|choice)\s|\(?[A-Ja-j][).:]|\([A-Ja-j]\)$)"
    r"(?:(?:option|choice|answer)\s+)?\(?([A-Ja-j])(?:[).:]+\s*(.*)|)"
)
_MATRIX = r"(?s)[(\[]?\s*\\begin\{([pbBvV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}\s*[)\]]?"
_INTERVALS = {
    "Interval": (True, True), "Interval.open": (False, False), "Interval.Lopen": (False, True),
    "Interval.Ropen": (True, False),
}  # fmt: skip


def read_marked(text: str, read: Read) -> Shape | None:
    """The shape by the first form that the text has; None without any."""
    if (fixed := _FIXED.get(text.lower())) is not None:
        return fixed
    for pattern, form in _FORMS:
        if match := pattern.fullmatch(text):
            shape = form(match, read)
            if shape is not None:
                return shape
    return None


def _based(match: re.Match[str], read: Read) -> Shape | None:
    base = int(next(group for group in match.groups()[1:] if group))
    digits = match[1].lstrip("+")
    return (
        Based(digits.upper(), base) if digits.lstrip("-")[0].isdigit() and 2 <= base <= 36 else None
    )


def _clock(match: re.Match[str], read: Read) -> Shape | None:
    hour, minute, half = match.groups()
    if minute and (int(hour) > 23 or int(minute) > 59):
        return None
    return Clock(int(hour), int(minute or 0), f"{half.lower()}m" if half else "")


def _choice(match: re.Match[str], read: Read) -> Shape | None:
    sides = [len(split_top(side, COLON)) for side in match[0].split("=")]
    if len(sides) > 1 and sides[0] > 1 and len(set(sides)) == 1:
        return None  # a:b = 2:3
    rest = tidy(match[2] or "")
    # "A) B) C)", "(B) or (C)" and "(A) is wrong" choose nothing.
    return Hedge(match[0]) if _CHOOSES_MORE.search(rest) else Choice(match[1].upper(), rest)


def _matrix(match: re.Match[str], read: Read) -> Shape | None:
    kind, body = match.groups()
    if kind in ("vmatrix", "Vmatrix"):
        return None  # a determinant
    rows = re.split(r"\\cr(?:\s*\[[^\]]*\])?", body.replace("\\hline", ""))
    return Matrix(
        tuple(tuple(read(cell.strip()) for cell in row.split("&")) for row in rows if row.strip())
    )


def _python(match: re.Match[str], read: Read) -> Shape | None:
    name, body = match.groups()
    items = tuple(read(part.strip()) for part in split_top(body, COMMA))
    if name in _INTERVALS:
        return Interval(*items, *_INTERVALS[name]) if len(items) == 2 else None
    if name in ("FiniteSet", "Tuple"):
        return Sequence("set" if name == "FiniteSet" else "tuple", items)
    if name == "Union":
        return Union(items)
    inner = read(body)
    if name == "set":
        return Sequence("set", inner.items) if isinstance(inner, Sequence) else None
    if isinstance(inner, Sequence) and inner.kind in ("tuple", "brackets"):
        return Matrix(tuple((item,) for item in inner.items))
    return inner


def _ratio(match: re.Match[str], read: Read) -> Shape | None:
    parts = [part.strip() for part in split_top(match[0], COLON)]
    name, equals, _ = match[0].partition("=")
    if len(parts) < 2 or not all(parts) or (equals and ratio_names(name.strip())):
        return None
    return Ratio(tuple(parts))


_FORMS: list[tuple[re.Pattern[str], Callable[[re.Match[str], Read], Shape | None]]] = [
    (re.compile(pattern), form)
    for pattern, form in (
        (r"\(?([+-]?[0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*(?:base\s*)?(\d+)\s*\}|(\d+))", _based),
        (r"(?i)([+-]?[0-9A-F]+)\s*\(?(?:in\s+)?base\s*[- ]?(\d+)\)?", _based),
        (r"(?i)(\d{1,2}):(\d{2})\s*(?:([ap])\.?\s*m\.?)?", _clock),
        (_BUILDER, lambda match, read: read(match[1])),
        (r"(?i)(\d{1,2})()\s*([ap])\.?\s*m\.?", _clock),
        (_CHOICE, _choice),
        (_MATRIX, _matrix),
        (
            r"(Matrix|FiniteSet|Union|Interval(?:\.open|\.Lopen|\.Ropen)?|set|Tuple)\((.*)\)",
            _python,
        ),
        (r"(?s)(?![^\W\d_]).*:.*", _ratio),
    )
]


def are_words(text: str) -> bool:
    """Words of two letters and more: "i, -i" is algebra."""
    letters = re.findall(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])", text)
    if WORDS.fullmatch(text) is None or not set(letters) <= {"a", "A", "I", "s", "t"}:
        return False
    # "ab" and "a t" are products; a word has three letters, or is one of these.
    words = re.findall(r"[^\W\d_]+", text)
    return any(
        len(word) > 2 or not word.isascii() or word.lower() in _SHORT_WORDS for word in words
    )


def read_words(text: str) -> Shape | None:
    """Words in small letters without articles; None if the text is something else."""
    if not are_words(text) or len(text) < 2 or text in _CONSTANT_WORDS:
        return None
    words = [word for word in re.split(r"[\s,.!'-]+", text.lower()) if word]
    # The last word is no article: "vitamin A".
    return Words(tuple(word for word in words[:-1] if word not in _ARTICLES) + (words[-1],))
