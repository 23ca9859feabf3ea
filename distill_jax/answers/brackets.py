"""Brackets in a text: depths, matching, and splitting at the top level."""

import re

OPENING, CLOSING = "([{⟨", ")]}⟩"


def level(text: str, place: int) -> int:
    """How many brackets are open before a place."""
    before = text[:place]
    return sum(before.count(c) for c in OPENING) - sum(before.count(c) for c in CLOSING)


def split_top(text: str, separators: str) -> list[str]:
    r"""Splits at separators (single signs, or one command) outside all brackets.

    A comma between digit groups of a number, as in 1,000, does not split.
    """
    command = separators if separators.startswith("\\") else ""
    parts, level, start, place = [], 0, 0, 0
    while place < len(text):
        char = text[place]
        if char in OPENING:
            level += 1
        elif char in CLOSING:
            level -= 1
        elif level == 0 and command and text.startswith(command, place):
            if not text[place + len(command) : place + len(command) + 1].isalpha():
                parts.append(text[start:place])
                start = place + len(command)
                place = start - 1
        elif level == 0 and not command and char in separators:
            if char != "," or not re.match(r"\d,\d{3}(?!\d)", text[max(place - 1, 0) : place + 5]):
                parts.append(text[start:place])
                start = place + 1
        place += 1
    return [*parts, text[start:]]


def closes(body: str) -> bool:
    """Whether each bracket inside is closed inside."""
    level = 0
    for char in body:
        level += (char in OPENING) - (char in CLOSING)
        if level < 0:
            return False
    return level == 0
