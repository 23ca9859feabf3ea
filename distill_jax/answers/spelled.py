"""Numbers in words: "twenty-five", "one hundred and three", "two thirds", "negative five"."""

import re
from fractions import Fraction

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_UNITS = {word: value for value, word in enumerate(_SMALL)}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_PARTS = {"half": 2, "halves": 2, "quarter": 4} | {
    word: value
    for value, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split(), 3)
}
_SIGNS = {"negative": -1, "minus": -1}
# Words that change the value of a number before them, so that they are no counted things.
NUMERAL_WORDS = frozenset(
    {*_UNITS, *_TENS, *SCALES, *_PARTS, *(f"{word}s" for word in (*_PARTS, *SCALES)), *_SIGNS}
    | {"dozen", "dozens", "score", "hundredth", "hundredths", "thousandth", "thousandths"}
)


def spelled(text: str) -> Fraction | None:
    """The value of a number written in words alone, or None."""
    words = re.split(r"[\s-]+", text.lower())
    if len(words) == 2 and words[0] == "a" and words[1] in SCALES:
        return Fraction(SCALES[words[1]])
    sign = 1
    if words[0] in _SIGNS:
        sign, words = -1, words[1:]
    if not words or not set(words) <= NUMERAL_WORDS | {"and", "a", "an"}:
        return None
    bottom = _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))
    if bottom is not None:
        top = 1 if words[:-1] in (["a"], ["an"]) else _whole(words[:-1])
        return None if top is None else sign * Fraction(top, bottom)
    value = _whole(words)
    return None if value is None else Fraction(sign * value)


def _whole(words: list[str]) -> int | None:
    """A whole number; None for what is no number, such as "five seven"."""
    total = group = 0
    last = 10**15  # what comes next must be smaller: "twenty five", not "five twenty"
    scale = 10**15
    if not words or words[0] == "and" or words[-1] == "and":
        return None
    for word in words:
        if word == "and":
            continue
        if word in _UNITS or word in _TENS:
            value = _UNITS[word] if word in _UNITS else _TENS[word]
            least = 100 if word in _TENS or value >= 10 else 10
            if last < least or (last < 100 and value == 0):
                return None
            group, last = group + value, value if word in _UNITS else 10
        elif word == "hundred" and 0 < group < 10 and last < 10:
            group, last = group * 100, 100
        elif word in SCALES and word != "hundred" and 0 < group and SCALES[word] < scale:
            scale = SCALES[word]
            total, group, last = total + group * scale, 0, scale
        else:
            return None
    return total + group
