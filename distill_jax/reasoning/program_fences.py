"""The program in a model's text: the last complete fence of Python, found as CommonMark has it."""

import re
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
        fences: complete fences of Python in the text.
    """

    program: str | None
    failure: str = ""
    start: int = 0
    stop: int = 0
    fences: int = 0


def extract(text: str) -> Extracted:
    """The last complete fence of Python in a completion, outside of <think> parts.

    A fence is CommonMark's: a line of three or more backticks and an info string whose first word
    is python, py or python3, up to a line of at least as many backticks. Shorter runs of backticks,
    and lines that open another fence, belong to the program. An unterminated fence behind a
    complete one changes nothing: its writer did not finish.
    """
    ends = [match.end() for match in _THINK_END.finditer(text)]
    first = ends[-1] if ends else 0
    thought = _THINK.search(text, first)
    found: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    others = 0
    for line in _FENCE.finditer(text, first, thought.start() if thought else len(text)):
        if opened is None:
            opened = line
        elif len(line[1]) >= len(opened[1]) and not line[2].strip():
            if _is_python(opened):
                found.append((_next_line(text, opened.end()), line.start()))
            else:
                others += 1
            opened = None
    if not found:
        cut = opened is not None and _is_python(opened)
        other = others > 0 or opened is not None
        why = "unterminated" if cut else "language" if other else "none"
        return Extracted(None, f"{NO_PROGRAM}:{why}")
    start, stop = found[-1]
    if not text[start:stop].strip():
        return Extracted(None, f"{NO_PROGRAM}:empty", start, stop, len(found))
    return Extracted(text[start:stop], "", start, stop, len(found))


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
