"""Comparing what has one value: numbers with units, formulas, ratios, times, words, choices."""

import abc
import re
from fractions import Fraction
from typing import NamedTuple

from distill_jax.answers.numbers import parse_number
from distill_jax.answers.numerals import Number
from distill_jax.answers.reading import read_shape
from distill_jax.answers.shapes import NAMES, Based, Choice, Clock, Ratio, Scalar, Shape, Words
from distill_jax.answers.spelling import squeeze
from distill_jax.answers.units import Unit

_SIDE_BY_SIDE = re.compile(r"[\d.]+(?: [\d.]+)+")
RIGHT, WRONG, UNDECIDED = "right", "wrong", "undecided"
MIN_ROUNDED_DIGITS = 4
FLOAT_DIGITS, FLOAT_ERROR = 15, Fraction(1, 10**14)


class Finding(NamedTuple):
    """A verdict and why."""

    verdict: str
    reason: str


class NeedsAlgebra(Exception):
    """The exact path cannot tell."""


class Judge:
    """Compares formulas, given as tidy texts; this one cannot, `algebra.Algebra` can."""

    def values(self, first: str, second: str, factor: Fraction) -> Finding:
        """Whether first·factor and second are equal."""
        raise NeedsAlgebra

    def equations(self, first: tuple[str, ...], second: tuple[str, ...], ordered: bool) -> Finding:
        """Whether l₁−r₁ and l₂−r₂ are the same up to a factor, above zero if ordered."""
        raise NeedsAlgebra


def together(findings: list[Finding]) -> Finding:
    """Right if all are; wrong if one is."""
    for verdict in (WRONG, UNDECIDED):
        for finding in findings:
            if finding.verdict == verdict:
                return finding
    return Finding(RIGHT, "all parts equal" if len(findings) != 1 else findings[0].reason)


class SingleComparison(abc.ABC):
    """Of single values; `compare.py` adds the rest."""

    def __init__(self, judge: Judge):
        self.judge = judge

    @abc.abstractmethod
    def shapes(self, first: Shape, second: Shape) -> Finding:
        """The verdict on any two shapes."""

    def texts(self, first: str, second: str) -> Finding:
        """Two texts, read and compared."""
        return self.shapes(read_shape(first), read_shape(second))

    def scalars(self, first: Scalar, second: Scalar) -> Finding:
        """Two values with their units."""
        if first.formula == second.formula and first.unit == second.unit:
            return Finding(RIGHT, "written the same")
        for one, other in ((first, second), (second, first)):
            # "4 s" against s + s + s + s is no time.
            if one.letter and other.unit is None and _has_name(other.formula, one.letter[0]):
                letters = f"({one.formula}) {one.letter}"
                return self.judge.values(letters, other.formula, Fraction(1))
        if first.unit and second.unit:
            if first.unit.powers != second.unit.powers:
                return Finding(WRONG, "different units")
            factor = first.unit.factor / second.unit.factor
        elif _is_percent(first.unit) or _is_percent(second.unit):
            pair = (second, first) if _is_percent(second.unit) else (first, second)
            return self.percent(*pair)
        else:
            factor = Fraction(1)
        return self.values(first, second, factor)

    def values(self, first: Scalar, second: Scalar, factor: Fraction) -> Finding:
        """Two formulas; the first is multiplied by the factor."""
        a, b = parse_number(first.formula), parse_number(second.formula)
        if a is None or b is None:
            if factor == 1 and squeeze(first.formula) == squeeze(second.formula):
                return Finding(RIGHT, "written the same")
            if any(_SIDE_BY_SIDE.fullmatch(one.formula) for one in (first, second)):
                return Finding(WRONG, "numbers side by side")
            return self.judge.values(first.formula, second.formula, factor)
        if a.value * factor == b.value:
            return Finding(RIGHT, "equal numbers")
        if factor == 1 and (is_float(a, b.value) or is_float(b, a.value)):
            return Finding(RIGHT, "equal as floats")
        if factor == 1 and (_rounded(a, b.value) or _rounded(b, a.value)):
            return Finding(RIGHT, "equal when rounded")
        return Finding(WRONG, "different numbers")

    def percent(self, percent: Scalar, plain: Scalar) -> Finding:
        """A percentage and a value without a unit."""
        as_it_is, b = self.values(percent, plain, Fraction(1)), parse_number(plain.formula)
        if b is None or b.value.denominator == 1 or plain.unit is not None:
            return as_it_is
        if abs(b.value) < 1 and as_it_is.verdict == RIGHT:
            return Finding(UNDECIDED, "a percentage against a number below 1")
        hundredths = self.values(percent, plain, Fraction(1, 100))
        return as_it_is if as_it_is.verdict == RIGHT else hundredths

    def bases(self, first: Based, second: Based) -> Finding:
        """Both the digits and the base must agree."""
        if first == second:
            return Finding(RIGHT, "same digits and base")
        try:
            equal = int(first.digits, first.base) == int(second.digits, second.base)
        except ValueError:
            return Finding(WRONG, "digits that the base does not have")
        if equal and first.base != second.base:
            return Finding(UNDECIDED, "equal values in different bases")
        return Finding(WRONG, "different digits or base")

    def base_and_scalar(self, based: Based, scalar: Scalar) -> Finding:
        """The digits alone count."""
        same = squeeze(scalar.formula).upper() == based.digits
        return Finding(RIGHT if same else WRONG, "the base on one side alone")

    def ratios(self, first: Ratio, second: Ratio) -> Finding:
        """Part by part."""
        if len(first.parts) != len(second.parts):
            return Finding(WRONG, "ratios of different length")
        found = together(
            [self.texts(*pair) for pair in zip(first.parts, second.parts, strict=True)]
        )
        if found.verdict != WRONG:
            return found
        crossed = self.proportional(first.parts, second.parts)
        return Finding(UNDECIDED, "proportional, but not part by part") if crossed else found

    def proportional(self, first: tuple[str, ...], second: tuple[str, ...]) -> bool:
        """Whether two ratios of plain numbers have one value."""
        numbers = [parse_number(part) for part in (*first, *second)]
        values = [number.value for number in numbers if number is not None]
        x, y = values[: len(first)], values[len(first) :]
        return len(values) == len(numbers) and all(
            x[0] * q == p * y[0] for p, q in zip(x, y, strict=True)
        )

    def ratio_and_scalar(self, ratio: Ratio, scalar: Scalar) -> Finding:
        """a : b and one value: a : b is a/b."""
        if len(ratio.parts) != 2:
            return Finding(WRONG, "a ratio of several parts and one value")
        return self.texts(f"({ratio.parts[0]})/({ratio.parts[1]})", scalar.formula)

    def clocks(self, first: Clock, second: Clock) -> Finding:
        """Hours, minutes, and the half of the day where both give it."""
        same = bool(_minutes(first) & _minutes(second))
        return Finding(RIGHT if same else WRONG, "times of day")

    def clock_and_ratio(self, clock: Clock, other: Ratio | Scalar) -> Finding:
        """12:30 without am or pm may be a ratio."""
        if clock.half:
            return Finding(WRONG, "a time of day and another form")
        return self.shapes(as_ratio(clock), other)

    def words(self, first: Words, second: Words) -> Finding:
        """The same words in the same order."""
        if first == second:
            return Finding(RIGHT, "same words")
        a, b = "".join(first.words), "".join(second.words)
        if len(a) == len(b) <= 5 and sorted(a) == sorted(b):
            return Finding(UNDECIDED, "letters in another order")
        return Finding(WRONG, "different words")

    def scalar_and_words(self, scalar: Scalar, words: Words) -> Finding:
        """ "ab" may be the product of a and b."""
        text = "".join(words.words)
        if parse_number(scalar.formula) is not None or len(words.words) > 1 or len(text) > 4:
            return Finding(WRONG, "a value and words")
        return self.judge.values(scalar.formula, text, Fraction(1))

    def choices(self, first: Choice, second: Choice) -> Finding:
        """The letter; the texts too where both have one."""
        if first.letter != second.letter:
            return Finding(WRONG, "different choices")
        if first.text and second.text:
            return self.texts(first.text, second.text)
        return Finding(RIGHT, "same choice")

    def choice_and_other(self, choice: Choice, other: Shape) -> Finding:
        """The letter alone, or the choice's text."""
        if isinstance(other, Scalar) and re.fullmatch("[A-Ja-j]", other.formula):
            same = other.formula.upper() == choice.letter
            return Finding(RIGHT if same else WRONG, "the letter of the choice")
        if choice.text:
            return self.shapes(read_shape(choice.text), other)
        return Finding(WRONG, f"a choice and {NAMES[type(other)]}")


def as_ratio(clock: Clock) -> Shape:
    """12:30 as a ratio; a time of day that says am or pm is none."""
    return clock if clock.half else Ratio((str(clock.hour), f"{clock.minute:02}"))


def _minutes(clock: Clock) -> set[int]:
    """Minutes after midnight; both halves of the day where it does not say which."""
    if not clock.half and not 1 <= clock.hour <= 12:
        return {60 * clock.hour + clock.minute}
    early = 60 * (clock.hour % 12) + clock.minute
    return {
        early + 720 * late for late, half in enumerate(("am", "pm")) if clock.half in (half, "")
    }


def is_float(decimal: Number, exact: Fraction) -> bool:
    """Whether a decimal is a value as a program's floats print it, wrong in the last digits."""
    if decimal.decimals is None or not FLOAT_DIGITS <= decimal.digits <= FLOAT_DIGITS + 3:
        return False
    return abs(decimal.value - exact) <= FLOAT_ERROR * abs(exact)


def _has_name(formula: str, letter: str) -> bool:
    return re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", formula) is not None


def _is_percent(unit: Unit | None) -> bool:
    return unit is not None and unit.is_percent


def _rounded(decimal: Number, exact: Fraction) -> bool:
    """Whether a written decimal is the exact value, one without end, rounded or cut off."""
    if decimal.decimals is None or decimal.digits < MIN_ROUNDED_DIGITS or _is_finite(exact):
        return False
    scale = 10**decimal.decimals
    scaled, wanted = abs(exact) * scale, abs(decimal.value) * scale
    near = wanted in (scaled.__floor__(), (scaled + Fraction(1, 2)).__floor__())
    return near and (exact < 0) == (decimal.value < 0)


def _is_finite(value: Fraction) -> bool:
    """Whether its decimals end: its denominator divides a power of ten."""
    bottom = value.denominator
    return pow(10, bottom.bit_length(), bottom) == 0
