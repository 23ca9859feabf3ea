"""Written numbers with units, nouns and scales behind them; nothing is evaluated."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from distill_jax.answers.numerals import (
    MAX_DIGITS,
    NUMERAL_WORDS,
    SCALES,
    Number,
    number_alone,
    spelled,
)
from distill_jax.answers.spelling import DOLLAR, tidy
from distill_jax.answers.units import SHORT, Unit, read_unit

_MONEY_FIRST = re.compile(rf"([+-]?)\s*{DOLLAR}\s*([+-]?)(.*)")
_RATE = re.compile(r"(.*?)\s*((?:/|per\s|an?\s).*)")
_PHRASE_START = re.compile(r"%|\^\\circ|(?<![A-Za-z\\])[A-Za-z]")
_TRIGONOMETRIC = re.compile(r"sin|cos|tan|cot|sec|csc")
_COMPOUND_PART = re.compile(r"(\d[\d.,]*)\s*([A-Za-z]{2,})")
_COMPOUND = re.compile(r"\d[\d.,]*\s*[A-Za-z]{2,}(?:,?\s*(?:and\s+)?\d[\d.,]*\s*[A-Za-z]{2,}){1,3}")
# A phrase behind a number that is a noun, or several: letters, and small words between.
# "18 of them", "18 in total", "18 a month": small words that may begin what follows a number.
_SMALL_WORDS = r"(?:of|in|on|at|as|a|an)(?= [^\W\d_]{3})"
_NOUN = re.compile(
    rf"(?:[^\W\d_]{{3,}}|{_SMALL_WORDS})(?:[ -](?:[^\W\d_]{{2,}}|a)){{0,4}}"
    r"|units?\s*\^\s*\{?\s*\d\s*\}?"
)
_NO_NOUNS = NUMERAL_WORDS | frozenset(
    "or and but not mod sin cos tan cot sec csc log exp sqrt plus minus maybe perhaps"
    " possibly probably either nor if is are pi frac no inf infinity squared cubed"
    " factorial below lakh lakhs crore crores base binary octal hexadecimal hex decimal versus"
    " remainder modulo wrong incorrect unless except without arcsin arccos arctan sinh cosh tanh"
    " alpha beta gamma delta epsilon zeta eta theta kappa lambda sigma tau phi chi psi omega"
    " most least".split()
)
# "3 sinx" and "5 xyz" are algebra.
_NO_WORD = re.compile(
    r"(?:sin|cos|tan|cot|sec|csc|log|exp|ln)[xyz]|abc|abd|acd|bcd|(?!pts)[^aeiouyAEIOUY\W]+|[xyz]+"
)


_LETTERS = re.compile(r"(?!N m$)[A-Za-z](?: [A-Za-z])+")


@lru_cache(maxsize=65_536)
def parse_number(text: str) -> Number | None:
    r"""The number that a text writes, or None.

    Understands signs, thousands separators, decimals, periods, a/b, \frac, mixed numbers, 1e6 and
    3·10^5, numbers in words, money before, and units, nouns, "million" and % behind.
    """
    text = tidy(text)
    if not text or len(text) > 2 * MAX_DIGITS:
        return None
    number = number_alone(text)
    if number is not None:
        return number
    if (compound := _compound(text)) is not None:
        return compound
    formula, unit = split_unit(text)
    scale = 1
    head, _, last = formula.rpartition(" ")
    if last.lower() in SCALES and head and number_alone(head) is not None:
        formula, scale = head, SCALES[last.lower()]
    number = number_alone(formula.strip())
    if number is None:
        return None
    if scale != 1:
        number = Number(number.value * scale)
    return number._replace(unit=unit)


@lru_cache(maxsize=65_536)
def split_unit(text: str) -> tuple[str, Unit | None]:
    """(formula, unit) of a tidy text: "10 cm", DOLLAR "5", "9\\pi square inches", "12 girls".

    A noun is taken off and gives no unit. (text, None) if there is nothing to take off.
    """
    if match := _MONEY_FIRST.fullmatch(text):
        rate = _RATE.fullmatch(match[3])
        if rate and (unit := read_unit(f"{DOLLAR} {rate[2]}")):
            return match[1] + match[2] + rate[1], unit
        return match[1] + match[2] + split_unit(match[3].strip())[0], read_unit(DOLLAR)
    if text.endswith(DOLLAR):
        return text[:-1].strip(), read_unit(DOLLAR)
    for match in _PHRASE_START.finditer(text):
        before, phrase = text[: match.start()].rstrip(), text[match.start() :]
        cut = _Cut(text, before, phrase, match.start() > len(before))
        rules = _RULES if _may_follow(cut) else _RULES[:1]
        if found := next(filter(None, (rule(cut) for rule in rules)), None):
            return found
    return text, None


class _Cut(NamedTuple):
    """A text cut into a formula and the phrase behind it; apart: with a space between them."""

    text: str
    before: str
    phrase: str
    apart: bool

    @property
    def word(self) -> str:
        """The phrase's first word."""
        return re.match(r"[A-Za-z]*", self.phrase)[0].lower()  # type: ignore[index]


def _may_follow(cut: _Cut) -> bool:
    """Whether a unit or a noun may stand here: not in "2 g h", not behind an angle's sine."""
    if cut.phrase[0] == "^" and _TRIGONOMETRIC.search(cut.before):
        return False
    ends = cut.before[-1:] in tuple("0123456789.)}]!") or _ends_in_name(cut.before)
    return ends and not _LETTERS.fullmatch(cut.phrase)


def _behind_words(cut: _Cut) -> tuple[str, Unit | None] | None:
    """Five apples, five miles."""
    if cut.before[-1:].isalpha() and _is_noun(cut.phrase) and spelled(cut.before) is not None:
        return cut.before, read_unit(cut.phrase) or _leading_unit(cut.phrase)
    return None


def _scaled(cut: _Cut) -> tuple[str, Unit | None] | None:
    """1.2 million, and what is counted in millions."""
    if cut.word not in SCALES or not cut.apart or number_alone(cut.before) is None:
        return None
    head, _, tail = cut.phrase.partition(" ")
    if tail and not _is_noun(tail) and read_unit(tail) is None:
        return cut.text, None
    return f"{cut.before} {head}", split_unit("1 " + tail)[1] if tail else None


def _with_unit(cut: _Cut) -> tuple[str, Unit | None] | None:
    """10 cm, 10cm, 10 m; "10m" and "r^2 h" are algebra."""
    unit = read_unit(cut.phrase)
    one_letter = len(cut.phrase) == 1 and cut.phrase.isalpha()
    if unit is None or not (cut.apart or (cut.word not in SHORT and not one_letter)):
        return None
    return None if one_letter and number_alone(cut.before) is None else (cut.before, unit)


def _with_noun(cut: _Cut) -> tuple[str, Unit | None] | None:
    r"""12 girls, 5 miles apart: what follows a unit is ignored.

    Behind a formula only with a unit: "\triangle ABC" and "\pi abc" name nothing counted.
    """
    if read_unit(cut.phrase) is not None or not (cut.apart or cut.phrase[0] == "%"):
        return None
    leading = _leading_unit(cut.phrase)
    counts = leading is not None or number_alone(cut.before) is not None
    noun = _is_noun(cut.phrase.removeprefix("%").strip(), leading is not None)
    return (cut.before, leading) if counts and noun else None


# The first rule holds behind words; the others where _may_follow says so.
_RULES = (_behind_words, _scaled, _with_unit, _with_noun)


def _compound(text: str) -> Number | None:
    """ "5 feet 6 inches", "12 dollars and 50 cents": one value, in the first unit."""
    if not _COMPOUND.fullmatch(text):
        return None
    total, first = Fraction(0), None
    for written, phrase in _COMPOUND_PART.findall(text):
        number, unit = number_alone(written), read_unit(phrase)
        if number is None or unit is None:
            return None
        first = first or unit
        if unit.powers != first.powers or unit.factor > first.factor:
            return None
        total += number.value * unit.factor / first.factor
    return Number(total, first)


def _ends_in_name(before: str) -> bool:
    r"""Whether a formula ends in a command such as \pi, or a variable of one letter."""
    return re.search(r"\\[a-z]+$|(?<![A-Za-z])[a-z]$", before) is not None


def _is_noun(phrase: str, has_unit: bool = False) -> bool:
    words = phrase.lower().replace("-", " ").split()
    if has_unit:  # "ft tall"
        return re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+){1,4}", phrase) is not None
    if "and" in words[1:-1]:
        words.remove("and")  # "boys and girls"
    if not _NOUN.fullmatch(phrase) or _NO_NOUNS.intersection(words):
        return False
    return _NO_WORD.fullmatch(words[0]) is None


def _leading_unit(phrase: str) -> Unit | None:
    """The unit that a noun phrase starts with: of "square miles of land" the square mile."""
    words = phrase.split()
    for count in range(len(words) - 1, 0, -1):
        unit = read_unit(" ".join(words[:count]))
        if unit is not None:
            return unit
    return None
