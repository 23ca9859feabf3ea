"""Divides the rows of a batch into calls of few shapes, several rows one after another in each.

A call has one packed row on each device. Its width is one of a few; which widths a batch takes, and
which rows go where, is chosen together: the fewest positions for which best fit finds a place for
every row.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.data.batching import bucket

# Calls of a batch that may be narrower than the widest. A third one saves 1% of the positions.
_NARROWER = 2


class PackedCall(NamedTuple):
    """A call: the width of its packed rows, and which rows of the batch each holds, by number."""

    width: int
    places: list[list[int]]


def divide(
    total_B: Sequence[int] | np.ndarray, sizes: Sequence[int], shards: int
) -> list[PackedCall]:
    """The rows of a batch, packed into calls of `shards` rows of one of the sizes.

    Candidates are any number of calls of the greatest size and at most two narrower ones, by rising
    positions, then calls; the first is taken into which the rows fit. By falling length each row
    goes where it leaves the least room.

    Args:
        total_B: tokens of each row.
        sizes: widths, ascending.
        shards: devices that the rows of a call are split over.

    Raises:
        DataError: a row is longer than the greatest size.
    """
    lengths = [int(total) for total in total_B]
    bucket(max(lengths), sizes)
    falling = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    widths, held = next(
        (widths, held)
        for widths in _candidates(lengths, sizes, shards)
        if (held := _best_fit(lengths, falling, np.repeat(widths, shards).tolist())) is not None
    )
    starts = range(0, len(held), shards)
    return [PackedCall(w, held[i : i + shards]) for w, i in zip(widths, starts, strict=True)]


def _candidates(
    lengths: Sequence[int], sizes: Sequence[int], shards: int
) -> Iterator[tuple[int, ...]]:
    """Widths of the calls of a batch, one of which has room for each row alone."""
    *narrower, greatest = sizes
    most = round_up(len(lengths), shards) // shards
    tails = [
        tail
        for count in range(_NARROWER + 1)
        for tail in combinations_with_replacement(narrower, count)
    ]
    found = sorted(
        (full * greatest + sum(tail), full + len(tail), full, tail)
        for full in range(most + 1)
        for tail in tails
    )
    tokens, longest = sum(lengths), max(lengths)
    for positions, _, full, tail in found:
        widths = (greatest,) * full + tail
        if positions * shards >= tokens and max(widths, default=0) >= longest:
            yield widths


def _best_fit(
    lengths: Sequence[int], falling: Sequence[int], widths: Sequence[int]
) -> list[list[int]] | None:
    """Which rows go into each of the packed rows of these widths; None: they do not fit so."""
    held: list[list[int]] = [[] for _ in widths]
    rooms = sorted((width, place) for place, width in enumerate(widths))
    for row in falling:
        at = bisect_left(rooms, (lengths[row], -1))
        if at == len(rooms):
            return None
        room, place = rooms.pop(at)
        held[place].append(row)
        insort(rooms, (room - lengths[row], place))
    return held
