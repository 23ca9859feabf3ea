"""Programs as completions write them: in a fence of Markdown."""

import re

_BACKTICKS = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def fenced(program: str) -> str:
    """The program in a fence of Python that no line of it closes, without a line end behind it."""
    longest = max((len(match[1]) for match in _BACKTICKS.finditer(program)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}python\n{program.rstrip()}\n{fence}"
