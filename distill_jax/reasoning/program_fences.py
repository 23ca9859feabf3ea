"""The program in a model's text: the last complete fence of Python, found as CommonMark has it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

LANGUAGES = ("python", "py", "python3")
NO_PROGRAM = "no_program"

_FENCE = re.compile(r"^ {0,3}(`{3,})([^`\r\n]*)\r?$", re.MULTILINE)
_THINK_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINK = re.compile(r"<think(?:ing)?>", re.IGNORECASE)


class Extracted(NamedTuple):
    """The program of a completion.

    Attributes:
        program: text[start:stop], or None where there is none.
        failure: "" or why there is none: no_program:none (no fence), no_program:unterminated (its
            fence is never closed), no_program:language (fences of other languages or of none),
            no_program:empty (a blank fence).
        start, stop: characters of the text.
    """

    program: str | None
    failure: str = ""
    start: int = 0
    stop: int = 0


class Fence(NamedTuple):
    """A fence of a text: what it holds is text[start:stop], up to the text's end if not closed."""

    start: int
    stop: int
    python: bool
    closed: bool


def fences(text: str) -> Iterator[Fence]:
    """The fences of a text outside of <think> parts, in order.

    A fence is CommonMark's: a line of three or more backticks and an info string, up to a line of
    at least as many backticks. It is Python's if the first word of that string is python, py or
    python3. Shorter runs of backticks, and lines that open another fence, belong to what it holds.
    """
    ends = [match.end() for match in _THINK_END.finditer(text)]
    first = ends[-1] if ends else 0
    thought = _THINK.search(text, first)
    last = thought.start() if thought else len(text)
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(text, first, last):
        if opened is None:
            opened = line
        elif len(line[1]) >= len(opened[1]) and not line[2].strip():
            yield Fence(_next_line(text, opened.end()), line.start(), _is_python(opened), True)
            opened = None
    if opened is not None:
        yield Fence(_next_line(text, opened.end()), last, _is_python(opened), False)


def extract(text: str) -> Extracted:
    """The last complete fence of Python in a completion, see `fences`.

    An unterminated fence behind a complete one changes nothing: its writer did not finish.
    """
    every = list(fences(text))
    found = [(one.start, one.stop) for one in every if one.python and one.closed]
    if not found:
        cut = any(one.python for one in every)
        why = "unterminated" if cut else "language" if every else "none"
        return Extracted(None, f"{NO_PROGRAM}:{why}")
    start, stop = found[-1]
    if not text[start:stop].strip():
        return Extracted(None, f"{NO_PROGRAM}:empty", start, stop)
    return Extracted(text[start:stop], "", start, stop)


def _is_python(opening: re.Match[str]) -> bool:
    words = opening[2].split(maxsplit=1)
    return bool(words) and words[0].lower() in LANGUAGES


def _next_line(text: str, place: int) -> int:
    return min(place + 1, len(text))  # `place` is that of a line feed: "$" matched before it


def is_closed(text: str) -> bool:
    """Whether the text holds a complete program, the line of its closing fence ended too.

    True of every continuation of a text of which it is true.
    """
    ends = (line.end() + 1 for line in _FENCE.finditer(text))
    return any(end <= len(text) and extract(text[:end]).program is not None for end in ends)
