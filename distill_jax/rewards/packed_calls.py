"""Divides the rows of a batch into calls of few shapes, several rows one after another in each.

A call has one packed row on each device. Its width is one of a few; which widths a batch takes, and
which rows go where, is chosen together: the fewest positions for which best fit finds a place for
every row. A packed row holds a prompt once, however many of its responses lie there.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.data.batching import bucket

# Calls of a batch that may be narrower than the widest. A third one saves 1% of the positions.
_NARROWER = 2


class RowLengths(NamedTuple):
    """Tokens of a row's prompt and response; rows of one prompt_id share their prompt."""

    prompt_id: int
    prompt: int
    response: int

    @property
    def total(self) -> int:
        """Tokens of the row alone."""
        return self.prompt + self.response


class PackedCall(NamedTuple):
    """A call: the width of its packed rows, and which rows of the batch each holds, by number.

    Rows of one prompt follow each other.
    """

    width: int
    places: list[list[int]]


def divide(rows: Sequence[RowLengths], sizes: Sequence[int], shards: int) -> list[PackedCall]:
    """The rows of a batch, packed into calls of `shards` rows of one of the sizes.

    Candidates are any number of calls of the greatest size and at most two narrower ones, by rising
    positions, then calls. The first that holds all rows is taken. Rows are placed by falling
    length, those of a prompt together: where their prompt is if there is room, else where the least
    room is left. If they do not fit so, they are placed as if no prompt were shared. A later
    response of a prompt takes one position more than its tokens: each response has one score more
    than tokens, and a packed row has as many scores as positions.

    Args:
        rows: their lengths.
        sizes: widths, ascending.
        shards: devices that the rows of a call are split over.

    Raises:
        DataError: a row is longer than the greatest size.
    """
    bucket(max(row.total for row in rows), sizes)
    alone = [row._replace(prompt_id=number) for number, row in enumerate(rows)]
    ways = [(one, _falling(one)) for one in (rows, alone)]
    widths, held = next(
        (widths, held)
        for widths in _candidates(rows, sizes, shards)
        for way in ways
        if (held := _best_fit(*way, np.repeat(widths, shards).tolist())) is not None
    )
    places = [_by_prompt(rows, inside) for inside in held]
    starts = range(0, len(places), shards)
    return [PackedCall(w, places[i : i + shards]) for w, i in zip(widths, starts, strict=True)]


def _by_prompt(rows: Sequence[RowLengths], inside: Sequence[int]) -> list[int]:
    """The rows of a place, those of a prompt behind the first of them."""
    runs: dict[int, list[int]] = {}
    for number in inside:
        runs.setdefault(rows[number].prompt_id, []).append(number)
    return [number for run in runs.values() for number in run]


def _falling(rows: Sequence[RowLengths]) -> list[int]:
    """Numbers of the rows by falling length; those of a prompt together, by their longest."""
    longest, first = defaultdict[int, int](int), dict[int, int]()
    for number, row in enumerate(rows):
        longest[row.prompt_id] = max(longest[row.prompt_id], row.total)
        first.setdefault(row.prompt_id, number)

    def place(number: int) -> tuple[int, int, int]:
        row = rows[number]
        return -longest[row.prompt_id], first[row.prompt_id], -row.total

    return sorted(range(len(rows)), key=place)


def _candidates(
    rows: Sequence[RowLengths], sizes: Sequence[int], shards: int
) -> Iterator[tuple[int, ...]]:
    """Widths of the calls of a batch, one of which has room for each row alone."""
    *narrower, greatest = sizes
    most = round_up(len(rows), shards) // shards
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
    tokens = _least_tokens(rows, greatest)
    longest = max(row.total for row in rows)
    for positions, _, full, tail in found:
        widths = (greatest,) * full + tail
        if positions * shards >= tokens and max(widths, default=0) >= longest:
            yield widths


def _least_tokens(rows: Sequence[RowLengths], greatest: int) -> int:
    """Tokens that packed rows of at most `greatest` hold at least.

    A prompt has a copy for each row that its responses need; one has no room for more of them than
    the prompt leaves.
    """
    responses, prompts = defaultdict[int, int](int), dict[int, int]()
    for row in rows:
        responses[row.prompt_id] += row.response
        prompts[row.prompt_id] = row.prompt
    copies = {
        of: max(1, -(-responses[of] // max(1, greatest - prompt))) for of, prompt in prompts.items()
    }
    return sum(responses.values()) + sum(copies[of] * prompt for of, prompt in prompts.items())


def _best_fit(
    rows: Sequence[RowLengths], falling: Sequence[int], widths: Sequence[int]
) -> list[list[int]] | None:
    """Which rows go into each of the packed rows of these widths; None: they do not fit so."""
    held: list[list[int]] = [[] for _ in widths]
    room = list(widths)
    rooms = sorted((width, place) for place, width in enumerate(widths))
    homes = defaultdict[int, list[int]](list)  # places that hold a prompt
    for number in falling:
        row = rows[number]
        # One position more: for the score of its end.
        fitting = [place for place in homes[row.prompt_id] if room[place] > row.response]
        if fitting:
            place, taken = min(fitting, key=lambda place: (room[place], place)), row.response + 1
        else:
            at = bisect_left(rooms, (row.total, -1))
            if at == len(rooms):
                return None
            place, taken = rooms[at][1], row.total
            homes[row.prompt_id].append(place)
        del rooms[bisect_left(rooms, (room[place], place))]
        room[place] -= taken
        insort(rooms, (room[place], place))
        held[place].append(number)
    return held
