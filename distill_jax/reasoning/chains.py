"""Numbers, signs and = that a text writes next to each other, and what they are the value of."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from distill_jax.answers.units import read_unit
from distill_jax.reasoning import arithmetic
from distill_jax.reasoning.arithmetic import (
    CLOSE,
    EQUALS,
    FRAC,
    LETTER,
    NEWLINE,
    NUMBER,
    OPEN,
    PERCENT,
    SIGN,
    STOP,
    WORD,
    NotArithmeticError,
    Token,
)

# Texts are read to here; a model that fills a long context is not worth more.
MAX_TEXT = 200_000
MAX_UNIT_WORDS = 3
# Words that change the value of the number beside them; the second lot only that behind them.
_CALCULATING = frozenset(
    "of half twice thrice double triple plus minus times squared cubed root sqrt sin cos tan log "
    "ln exp mod max min gcd lcm factorial dozen hundred thousand million billion trillion "
    "remainder quotient product choose".split()
)
_CALCULATING_BEFORE = _CALCULATING | {"by", "over", "less", "fewer", "more"}
# In front of "of".
_PARTS = frozenset("half third thirds quarter quarters fourth fifth tenth percent double".split())
_QUIET_STOPS = ".,;:?\"'|#"
_LOUD_STOPS = "!∑∏∫⌊⌈~@"
_ENDS_OPERAND = (NUMBER, CLOSE, PERCENT, WORD)


class Side(NamedTuple):
    """One side of an equation, or a number in prose.

    Attributes:
        tokens: its tokens.
        calculable: its value by arithmetic is what the text means.
        is_value: a number alone that no letter belongs to.
    """

    tokens: Sequence[Token]
    calculable: bool
    is_value: bool


class _Segment(NamedTuple):
    """Tokens without a break in between, and what stands before and behind them."""

    before: Token | None
    tokens: list[Token]
    after: Token | None


def value(side: Side) -> Fraction | None:
    """The number that a side is (a percent sign, a unit and parentheses aside), or None."""
    if not side.is_value:
        return None
    try:
        return arithmetic.evaluate(side.tokens, Fraction(1))
    except NotArithmeticError:
        return None


def chains(text: str) -> list[list[Side]]:
    """The runs of numbers, signs and = of a text, each cut at its =; a lone number is one side."""
    out = []
    for segment in _segments(arithmetic.lex(text[:MAX_TEXT])):
        parts: list[list[Token]] = [[]]
        for token in segment.tokens:
            if token.kind == EQUALS:
                parts.append([])
            else:
                parts[-1].append(token)
        last = len(parts) - 1
        sides: list[Side] = []
        for place, part in enumerate(parts):
            before = segment.before if place == 0 else None
            after = segment.after if place == last else None
            if place == 0:
                part, before = _behind_open(part, before)
            if place == last:
                part, after = _before_close(part, after)
            sides.append(_side(part, before, after, ends=place == last))
        out.append(sides)
    return out


# --- cutting a text ------------------------------------------------------------------------------


def _segments(tokens: Sequence[Token]) -> Iterator[_Segment]:
    before: Token | None = None
    held: list[Token] = []
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        previous = held[-1] if held else None
        step = _step(token, previous, before, held, following)
        if step == "skip":
            continue
        if (
            token.kind == WORD
            and token.text.lower() == "of"
            and not held
            and not _says(before, _PARTS)
        ):
            token = token._replace(text="total")  # "a total of 3 + 4" calculates nothing
        if step == "keep":
            held.append(token)
        elif step == "times":
            held.append(Token(SIGN, "*", token.start, token.end))
        else:
            if held:
                yield _Segment(before, held, None if step == "anew" else token)
            before, held = (previous, [token]) if step == "anew" else (token, [])
    if held:
        yield _Segment(before, held, None)


def _step(
    token: Token,
    previous: Token | None,
    before: Token | None,
    held: Sequence[Token],
    following: Token | None,
) -> str:
    """What a token does: keep, skip, times, break, or anew (a new segment that starts with it)."""
    behind_operand = previous is not None and previous.kind in _ENDS_OPERAND
    opens = following is not None and following.kind in (NUMBER, OPEN, FRAC)
    if token.kind == NEWLINE:
        return "skip" if held and following is not None and following.kind == EQUALS else "break"
    if token.kind == WORD:
        run = held[-MAX_UNIT_WORDS:]
        short = len(run) < MAX_UNIT_WORDS or any(t.kind != WORD for t in run)
        algebra = previous is not None and previous.end == token.start and not _glued_unit(token)
        calculates = token.text.lower() in _CALCULATING
        unit = behind_operand and short and not (algebra or calculates)
        return "keep" if unit else "break"
    if token.kind == LETTER:
        return "times" if token.text in "xX" and behind_operand and opens else "break"
    if token.kind == SIGN:
        spaced = following is not None and following.start > token.end
        if token.end - token.start == 2 and not (behind_operand and opens and not spaced):
            return "skip"  # **bold**
        return "keep"
    if token.kind == PERCENT:
        return "keep" if behind_operand else "break"
    if token.kind in (NUMBER, FRAC, OPEN) and behind_operand and previous is not None:
        glued = previous.end == token.start and previous.kind in (NUMBER, CLOSE)
        return "keep" if glued and token.kind in (OPEN, FRAC) else "anew"
    return "break" if token.kind == STOP else "keep"


def _glued_unit(token: Token) -> bool:
    """Whether letters glued to a number are a unit: 5kg, 24hours; not 2xy."""
    name = re.sub(r"[²³]|\^.*", "", token.text)
    return len(name) > 3 or read_unit(name) is not None


def _says(token: Token | None, words: frozenset[str]) -> bool:
    return token is not None and token.kind == WORD and token.text.lower() in words


def _behind_open(part: list[Token], before: Token | None) -> tuple[list[Token], Token | None]:
    """The left side of "(3 + 4 = 7)" starts behind the bracket that it does not close."""
    depth = 0
    for place in range(len(part) - 1, -1, -1):
        depth += (part[place].kind == CLOSE) - (part[place].kind == OPEN)
        if depth < 0:
            return part[place + 1 :], None
    return part, before


def _before_close(part: list[Token], after: Token | None) -> tuple[list[Token], Token | None]:
    depth = 0
    for place, token in enumerate(part):
        depth += (token.kind == OPEN) - (token.kind == CLOSE)
        if depth < 0:
            return part[:place], None
    return part, after


# --- one side ------------------------------------------------------------------------------------


def _side(
    tokens: Sequence[Token], before: Token | None, after: Token | None, *, ends: bool
) -> Side:
    if not tokens:
        return Side(tokens, False, False)
    lettered = _letter_before(tokens, before) or _letter_after(tokens, after)
    calculates = _says(before, _CALCULATING_BEFORE) or _says(after, _CALCULATING)
    # Of "48/2 = 24" the left side is a division, of "x = 1/2" the right one a number.
    plain = plain_tokens(tokens)
    number = _is_number(plain) and (ends or plain[-1].kind == NUMBER and len(plain) < 3)
    return Side(tokens, not (lettered or calculates), number and not lettered)


def _letter_before(tokens: Sequence[Token], before: Token | None) -> bool:
    if before is None or before.kind == NEWLINE:
        return False
    first, glued = tokens[0], before.end == tokens[0].start
    if first.kind == SIGN:
        # "so -3 + 5" starts with a minus sign; "x - 3", "5! - 3" and "total + 3" go on with one.
        signed = first.text == "-" and not glued and len(tokens) > 1
        signed = signed and first.end == tokens[1].start
        quiet = before.kind == STOP and before.text in _QUIET_STOPS
        return not (signed and (quiet or before.kind == WORD))
    if before.kind == LETTER or (before.kind == WORD and glued):
        return True
    if before.kind == STOP:
        return before.text in _LOUD_STOPS or (glued and before.text == ":")
    return before.kind == NUMBER


def _letter_after(tokens: Sequence[Token], after: Token | None) -> bool:
    if after is None:
        return False
    glued = tokens[-1].end == after.start
    if after.kind == WORD:
        return glued and tokens[-1].kind in (NUMBER, CLOSE)
    if after.kind == LETTER:
        return glued or (len(after.text) > 1 and tokens[-1].kind != WORD)
    return after.kind == STOP and glued and after.text in "!:"


def plain_tokens(tokens: Sequence[Token]) -> list[Token]:
    """A side without units and the parentheses around a number."""
    return [t for t in tokens if t.kind not in (WORD, OPEN, CLOSE, PERCENT)]


def _is_number(plain: Sequence[Token]) -> bool:
    if plain and plain[0].kind == SIGN and plain[0].text in "+-":
        plain = plain[1:]
    kinds = [t.kind for t in plain]
    if kinds == [NUMBER, SIGN, NUMBER]:
        return plain[1].text == "/"
    return kinds in ([NUMBER], [FRAC, NUMBER, NUMBER], [NUMBER, FRAC, NUMBER, NUMBER])


def calculates(side: Side) -> bool:
    """Whether a side is more than a number with its sign."""
    plain = plain_tokens(side.tokens)
    return len(plain) > 1 and not (len(plain) == 2 and plain[0].kind == SIGN)
