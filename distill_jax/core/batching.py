"""Sizes of batches."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def round_up(count: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `count`, and at least one multiple."""
    return max(1, -(-count // multiple)) * multiple


def filled(rows: Sequence[T], size: int) -> list[T]:
    """The rows, the last one repeated up to `size`: one compiled program serves all batches."""
    return [*rows, *[rows[-1]] * (size - len(rows))]
