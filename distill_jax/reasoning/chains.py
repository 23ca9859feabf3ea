"""Runs of numbers, signs and = in a text, cut into sides with their values."""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, zip_longest
from typing import NamedTuple

from distill_jax.answers.units import read_unit
from distill_jax.reasoning import arithmetic
from distill_jax.reasoning.arithmetic import NotArithmeticError, Token

# Texts are read to here; a model that fills a long context is not worth more.
MAX_TEXT = 200_000
MAX_UNIT_WORDS = 3
# Words that change the value of the number next to them; the second set only that after them.
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
_ENDS_OPERAND = ("number", "close", "percent", "word")


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
    """Tokens without a break in between, and the tokens before and after them."""

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
            if token.kind == "equals":
                parts.append([])
            else:
                parts[-1].append(token)
        last = len(parts) - 1
        sides: list[Side] = []
        for place, part in enumerate(parts):
            before = after = None
            if place == 0:
                reverse, before = _inside(part[::-1], segment.before, "close", "open")
                part = reverse[::-1]
            if place == last:
                part, after = _inside(part, segment.after, "open", "close")
            sides.append(_side(part, before, after, ends=place == last))
        out.append(sides)
    return out


# --- cutting a text ------------------------------------------------------------------------------


def _segments(tokens: Sequence[Token]) -> Iterator[_Segment]:
    before: Token | None = None
    held: list[Token] = []
    for token, following in zip_longest(tokens, tokens[1:]):
        step = _STEPS[token.kind](_Place(token, held, following))
        if step == "keep":
            held.append(token)
        elif step == "times":
            held.append(token._replace(kind="sign", text="*"))
        elif step != "skip":
            if held:
                yield _Segment(before, held, None if step == "new" else token)
            elif token.text.lower() == "of" and not _says(before, _PARTS):
                token = token._replace(text="total")  # "a total of 3 + 4" calculates nothing
            before, held = (held[-1], [token]) if step == "new" else (token, [])
    if held:
        yield _Segment(before, held, None)


class _Place(NamedTuple):
    """A token between those held for a segment and the one that follows.

    A rule says what to do there: keep it, skip it, read it as a times sign, break the segment, or
    start a new one with it.
    """

    token: Token
    held: list[Token]
    following: Token | None

    @property
    def behind_operand(self) -> bool:
        return bool(self.held) and self.held[-1].kind in _ENDS_OPERAND

    @property
    def glued(self) -> bool:
        return bool(self.held) and self.held[-1].end == self.token.start

    @property
    def opens(self) -> bool:
        return self.following is not None and self.following.kind in ("number", "open", "frac")


def _newline(at: _Place) -> str:
    goes_on = at.following is not None and at.following.kind == "equals"
    return "skip" if at.held and goes_on else "break"


def _word(at: _Place) -> str:
    """Up to MAX_UNIT_WORDS words behind an operand are its unit; not 2xy, not "2 squared"."""
    long = [token.kind for token in at.held[-MAX_UNIT_WORDS:]] == ["word"] * MAX_UNIT_WORDS
    algebra = at.glued and not _glued_unit(at.token)
    calculates = at.token.text.lower() in _CALCULATING
    return "keep" if at.behind_operand and not (long or algebra or calculates) else "break"


def _letter(at: _Place) -> str:
    times = at.token.text in "xX" and at.behind_operand and at.opens
    return "times" if times else "break"


def _sign(at: _Place) -> str:
    if at.token.end - at.token.start != 2:
        return "keep"
    spaced = at.following is not None and at.following.start > at.token.end
    return "keep" if at.behind_operand and at.opens and not spaced else "skip"  # **bold**


def _operand(at: _Place) -> str:
    """2(3) and 2\\frac{1}{2} go on; in "12 months 12*5" a new segment starts."""
    if not at.behind_operand:
        return "keep"
    factor = at.glued and at.token.kind != "number" and at.held[-1].kind in ("number", "close")
    return "keep" if factor else "new"


_STEPS: dict[str, Callable[[_Place], str]] = {
    "newline": _newline,
    "word": _word,
    "letter": _letter,
    "sign": _sign,
    "percent": lambda at: "keep" if at.behind_operand else "break",
    **dict.fromkeys(("number", "frac", "open"), _operand),
    **dict.fromkeys(("close", "equals"), lambda at: "keep"),
    "stop": lambda at: "break",
}


def _glued_unit(token: Token) -> bool:
    """Whether letters glued to a number are a unit: 5kg, 24hours; not 2xy."""
    name = re.sub(r"[²³]|\^.*", "", token.text)
    return len(name) > 3 or read_unit(name) is not None


def _says(token: Token | None, words: frozenset[str]) -> bool:
    return token is not None and token.kind == "word" and token.text.lower() in words


def _inside(
    part: list[Token], neighbour: Token | None, enters: str, leaves: str
) -> tuple[list[Token], Token | None]:
    """Cuts "(3 + 4 = 7)" at the bracket that the side does not close; it then has no neighbour."""
    depths = accumulate((token.kind == enters) - (token.kind == leaves) for token in part)
    end = next((place for place, depth in enumerate(depths) if depth < 0), None)
    return (part, neighbour) if end is None else (part[:end], None)


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
    number = _is_number(plain) and (ends or plain[-1].kind == "number" and len(plain) < 3)
    return Side(tokens, not (lettered or calculates), number and not lettered)


def _letter_before(tokens: Sequence[Token], before: Token | None) -> bool:
    if before is None or before.kind == "newline":
        return False
    first, glued = tokens[0], before.end == tokens[0].start
    if first.kind == "sign":
        # "so -3 + 5" starts with a minus sign; "x - 3", "5! - 3" and "total + 3" go on with one.
        signed = first.text == "-" and not glued and len(tokens) > 1
        signed = signed and first.end == tokens[1].start
        quiet = before.kind == "stop" and before.text in _QUIET_STOPS
        return not (signed and (quiet or before.kind == "word"))
    if before.kind == "letter" or (before.kind == "word" and glued):
        return True
    if before.kind == "stop":
        return before.text in _LOUD_STOPS or (glued and before.text == ":")
    return before.kind == "number"


def _letter_after(tokens: Sequence[Token], after: Token | None) -> bool:
    if after is None:
        return False
    glued = tokens[-1].end == after.start
    if after.kind == "word":
        return glued and tokens[-1].kind in ("number", "close")
    if after.kind == "letter":
        return glued or (len(after.text) > 1 and tokens[-1].kind != "word")
    return after.kind == "stop" and glued and after.text in "!:"


def plain_tokens(tokens: Sequence[Token]) -> list[Token]:
    """A side without units and the parentheses around a number."""
    return [t for t in tokens if t.kind not in ("word", "open", "close", "percent")]


def _is_number(plain: Sequence[Token]) -> bool:
    if plain and plain[0].kind == "sign" and plain[0].text in "+-":
        plain = plain[1:]
    kinds = " ".join(t.kind for t in plain)
    if kinds == "number sign number":
        return plain[1].text == "/"
    return kinds in ("number", "frac number number", "number frac number number")


def calculates(side: Side) -> bool:
    """Whether a side is more than a number with its sign."""
    plain = plain_tokens(side.tokens)
    return len(plain) > 1 and not (len(plain) == 2 and plain[0].kind == "sign")
