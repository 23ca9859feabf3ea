"""Written numbers as exact fractions. Nothing is evaluated; what is no plain number is None."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from distill_jax.answers.spelled import NUMERAL_WORDS, SCALES, spelled
from distill_jax.answers.spelling import DOLLAR, tidy
from distill_jax.answers.units import SHORT, Unit, read_unit

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


@lru_cache(maxsize=65_536)
def parse_number(text: str) -> Number | None:
    r"""The number that a text writes, or None.

    Understands signs, thousands separators, decimals, periods, a/b, \frac, mixed numbers, 1e6 and
    3·10^5, numbers in words, money before, and units, nouns, "million" and % behind.
    """
    text = tidy(text)
    if not text or len(text) > 2 * MAX_DIGITS:
        return None
    number = _value(text)
    if number is not None:
        return number
    if (compound := _compound(text)) is not None:
        return compound
    formula, unit = split_unit(text)
    scale = 1
    head, _, last = formula.rpartition(" ")
    if last.lower() in SCALES and head and _value(head) is not None:
        formula, scale = head, SCALES[last.lower()]
    number = _value(formula.strip())
    if number is None:
        return None
    if scale != 1:
        number = Number(number.value * scale)
    return number._replace(unit=unit)


@lru_cache(maxsize=65_536)
def split_unit(text: str) -> tuple[str, Unit | None]:
    """(formula, unit) of a tidy text: "10 cm", DOLLAR "5", "9\\pi square inches", "12 girls".

    A noun is taken off and gives no unit. (text, None) where nothing is to be taken off.
    """
    if match := re.fullmatch(rf"([+-]?)\s*{DOLLAR}\s*([+-]?)(.*)", text):
        rate = re.fullmatch(r"(.*?)\s*((?:/|per\s|an?\s).*)", match[3])
        if rate and (unit := read_unit(f"{DOLLAR} {rate[2]}")):
            return match[1] + match[2] + rate[1], unit
        return match[1] + match[2] + split_unit(match[3].strip())[0], read_unit(DOLLAR)
    if DOLLAR in text and text.endswith(DOLLAR):
        return text[:-1].strip(), read_unit(DOLLAR)
    for match in re.finditer(r"%|\^\\circ|(?<![A-Za-z\\])[A-Za-z]", text):
        start = match.start()
        before, phrase = text[:start].rstrip(), text[start:]
        if before[-1:].isalpha() and _is_noun(phrase) and spelled(before) is not None:
            return before, read_unit(phrase) or _leading_unit(phrase)
        if phrase[0] == "^" and _TRIGONOMETRIC.search(before):
            continue
        if not before or before[-1] not in "0123456789.)}]!" and not _ends_in_name(before):
            continue
        apart = start > len(before)
        first = re.match(r"[A-Za-z]*", phrase)
        word = first[0].lower() if first else ""
        if word in SCALES and apart and _value(before) is not None:
            head, _, tail = phrase.partition(" ")
            if tail and not _is_noun(tail) and read_unit(tail) is None:
                return text, None
            inner = split_unit("1 " + tail)[1] if tail else None
            return f"{before} {head}", inner
        unit = read_unit(phrase)
        if _LETTERS.fullmatch(phrase):
            continue  # "2 g h" is algebra
        # "r^2 h" is algebra: a unit of one letter stands apart, and behind a plain number.
        letter = len(phrase) == 1 and phrase.isalpha()
        if unit is not None and not letter and (apart or word not in SHORT):
            return before, unit
        if unit is not None and letter and apart and _value(before) is not None:
            return before, unit
        # "5 miles apart", "3 hours each": what follows the unit is ignored. Behind a formula only
        # where it has a unit: "\\triangle ABC" and "\\pi abc" name nothing counted.
        words = phrase.removeprefix("%").strip()
        leading = _leading_unit(phrase) if unit is None else None
        if unit is None and (apart or phrase[0] == "%") and _is_noun(words, leading is not None):
            if leading is not None or _value(before) is not None:
                return before, leading
    return text, None


def _compound(text: str) -> Number | None:
    """ "5 feet 6 inches", "12 dollars and 50 cents": one value, in the first unit."""
    if not _COMPOUND.fullmatch(text):
        return None
    total, first = Fraction(0), None
    for written, phrase in _COMPOUND_PART.findall(text):
        number, unit = _decimal(written), read_unit(phrase)
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


def _value(text: str) -> Number | None:
    if (plain := _decimal(text)) is not None:
        return plain
    if text[-1:] in "0123456789}]).":
        return _composed(text)
    if text[:1].isalpha() and (value := spelled(text)) is not None:
        return Number(value)
    return _composed(text) if text.endswith("ldots") else None


def _composed(text: str) -> Number | None:
    if match := _MIXED.fullmatch(text):
        part = _divide(match[3], match[4])
        return None if part is None else _signed(match[1], int(match[2]) + part)
    if match := _RATIO.fullmatch(text):
        return _number(_divide(_unwrap(match[1]), _unwrap(match[2])))
    if match := _FRAC.fullmatch(text):
        part = _divide(match[3] or match[4], match[5] or match[6])
        return None if part is None else _signed(match[1], int(match[2] or 0) + part)
    if match := _SCIENTIFIC.fullmatch(text):
        base, power = _decimal(match[1]), match[2]
        if base is None or len(power) > 4 or abs(int(power)) > MAX_EXPONENT:
            return None
        return Number(base.value * Fraction(10) ** int(power))
    if match := _TEN_POWER.fullmatch(text):
        if len(match[2]) > 4 or abs(int(match[2])) > MAX_EXPONENT:
            return None
        return _signed(match[1], Fraction(10) ** int(match[2]))
    if match := _PYTHON.fullmatch(text):
        return _number(_divide(match[1], match[2]))
    if match := _PERIOD.fullmatch(text):
        return _signed(match[1], _periodic(match[2], match[3], match[4] or match[5]))
    if match := _DOTS.fullmatch(text):
        repeated = _REPEATED.fullmatch(match[3])
        if repeated:
            return _signed(match[1], _periodic(match[2], repeated[1], repeated[2]))
        return _decimal(f"{match[1]}{match[2]}.{match[3]}")
    return None


def _unwrap(text: str) -> str:
    text = text.strip()
    inner = text[1:-1]
    if text[:1] == "(" and text[-1:] == ")" and "(" not in inner and ")" not in inner:
        return inner
    return text


def _number(value: Fraction | None) -> Number | None:
    return None if value is None else Number(value)


def _signed(sign: str, value: Fraction) -> Number:
    return Number(-value if sign == "-" else value)


def _periodic(whole: str, part: str, period: str) -> Fraction:
    nines = 10 ** len(period) - 1
    tail = Fraction(int(period), nines * 10 ** len(part))
    return Fraction(int(whole + part or "0"), 10 ** len(part)) + tail


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
