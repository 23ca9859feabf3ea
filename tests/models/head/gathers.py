"""What a compiled program brings together from several devices."""

import re


def gathered(text: str, *, vocab: int, tokens: int) -> list[str]:
    """All-gathers in a program whose result has these tokens beside this vocabulary."""
    found = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather(?:-start)?\(", text)
    shapes = [tuple(map(int, one.split(","))) for one in found]
    return [str(shape) for shape in shapes if shape[-1] >= vocab and tokens in shape[:-1]]
