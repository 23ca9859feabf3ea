"""Where the steps of a program begin, read from left to right as its writer wrote it.

A step is a group of top-level statements. Whether one begins at a line depends on what stands
before that line and on its first word, never on what follows: the steps of a program that is still
written are the first steps of the whole. So a lexer finds them, not Python's parser, and a syntax
error does not move the steps before it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from distill_jax.reasoning.program_fences import fences

# What may hold a line end that ends no statement: strings, comments, brackets, a backslash. A
# string in one quote ends with its line, closed or not; one in three with the program.
_LEXEME = re.compile(
    r"""
      (?P<string> \"{3}(?:\\.|[^\\])*?(?:\"{3}|\\?\Z) | '{3}(?:\\.|[^\\])*?(?:'{3}|\\?\Z)
        | "(?:\\(?:\r\n|.)|[^"\\\r\n])*"? | '(?:\\(?:\r\n|.)|[^'\\\r\n])*'? )
    | (?P<comment> \#[^\r\n]* )
    | (?P<join> \\(?:\r\n|\r|\n) )
    | (?P<open> [(\[{] ) | (?P<close> [)\]}] )
    | (?P<end> \r\n|\r|\n )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t\f]*(?:\r|\n|\Z)")
_WORD = re.compile(r"\w*")
# Words that go on with the statement above.
_CLAUSES = ("elif", "else", "except", "finally")


class Begin(NamedTuple):
    """The place where a step begins, in characters; sure: no further text would move it."""

    place: int
    sure: bool


class _Statement(NamedTuple):
    """A line at which a top-level statement begins: its place, that of its leading comment or None,
    and whether its first word is complete."""

    place: int
    comment: int | None
    sure: bool


def begins(text: str) -> list[Begin]:
    """Where the steps of a completion begin, but for the first, which begins with the text.

    In each fence of Python a comment that begins a line between top-level statements opens a step,
    and from the first such comment of a fence on nothing else does. Before it each line with a
    top-level statement opens one. What stands before a fence belongs to the first step in it, and
    what follows the last statement, the closing line too, to the last step. A text without a fence
    of Python is one step.
    """
    out: list[Begin] = []
    last: int | None = None  # where the fence before ended
    for fence in fences(text):
        found = list(_statements(text, fence.start, fence.stop)) if fence.python else []
        if not found:
            continue
        if last is not None:
            out.append(Begin(last, found[0].sure))
        grouped = found[0].comment is not None
        for one in found[1:]:
            if one.comment is not None:
                out.append(Begin(one.comment, one.sure))
            elif not grouped:
                out.append(Begin(one.place, one.sure))
            grouped = grouped or one.comment is not None
        closing = text.find("\n", fence.stop)
        last = len(text) if closing < 0 else closing + 1
    return out


def _statements(text: str, start: int, stop: int) -> Iterator[_Statement]:
    """The lines of text[start:stop] at which a top-level statement begins."""
    comment: int | None = None
    decorated = False
    for place in _lines(text, start, stop):
        first = text[place]
        if _BLANK.match(text, place, stop):
            continue
        if first == "#":
            comment = place if comment is None else comment
            continue
        word = _WORD.match(text, place, stop)
        assert word is not None
        # A backtick begins no statement, but perhaps the line that closes the fence.
        if first not in " \t\f`" and word[0] not in _CLAUSES:
            if not decorated:
                yield _Statement(place, comment, word.end() < stop)
            decorated = first == "@"
        comment = None


def _lines(text: str, start: int, stop: int) -> Iterator[int]:
    """Where lines begin that are not inside a string, brackets or a continued line."""
    if start < stop:
        yield start
    depth = 0
    for lexeme in _LEXEME.finditer(text, start, stop):
        if lexeme.lastgroup == "open":
            depth += 1
        elif lexeme.lastgroup == "close":
            depth = max(0, depth - 1)
        elif lexeme.lastgroup == "end" and not depth and lexeme.end() < stop:
            yield lexeme.end()
