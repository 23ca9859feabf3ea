"""Programs and their outputs as completions hold them: in a fence of Markdown."""

import re

_BACKTICKS = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def fenced(text: str, language: str = "python") -> str:
    """The text in a fence that no line of it closes, without a line end behind it."""
    longest = max((len(match[1]) for match in _BACKTICKS.finditer(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
