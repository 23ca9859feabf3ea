"""Sizes of batches: multiples, and a last batch that is as large as the others."""

from collections.abc import Sequence

import numpy as np


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least n, and at least one multiple."""
    return max(1, -(-n // multiple)) * multiple


def padded(n: int, multiple: int) -> int:
    """The smallest power of two times `multiple` that is at least n: few sizes are compiled."""
    return multiple << (-(-n // multiple) - 1).bit_length()


def quartered(live: int, current: int, *, first: int, counts: int, parts: int) -> int:
    """A quarter of `current` rows where it holds the live ones and may be, else `current`.

    A quarter at a time, so that each size is shrunk to one other alone: few pairs are compiled.

    Args:
        live: rows that are needed.
        first: rows before any shrinking.
        counts: different sizes there may be, `first` included.
        parts: every size is a multiple of it.
    """
    size, rest = divmod(current, 4)
    fits = rest == 0 and size >= live and size % parts == 0
    return size if fits and first < size * 4**counts else current


def filled(rows: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Row numbers, the last one repeated up to `size` entries: int [size].

    One compiled program then serves every batch. The caller drops what follows the first
    len(rows) results.
    """
    index = np.asarray(rows)
    return np.concatenate([index, np.repeat(index[-1:], size - len(index))])


def whole_groups(prompts: int, samples: int, parts: int) -> bool:
    """Whether prompts have several samples, and whole groups fill each of so many equal parts."""
    return samples > 1 and prompts % parts == 0
