"""The few lengths that a stage's batches are padded to, chosen before its first step.

Each pair of padded lengths is a compiled program. The choice depends on the rows and on which of
them each step takes (`plan`), or on the prompts and the longest response alone (`of_drawn`), never
on what has run: a resumed stage compiles the same programs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import DataError

# Programs of a stage.
LIMIT = 6
# Batches looked at. The largest lengths of all rows are added where a stage may take others.
COUNTED = 10_000
# A position of a row passes every layer, one of a response the head alone: a fifth as much in a
# model of 1.5B, a twelfth in one of 7B.
_ROW_COST = 8


class PaddedLengths(NamedTuple):
    """Columns of the arrays of a batch: of whole rows (T) and of responses (R)."""

    T: int
    R: int


def padded_lengths(lengths_B2: np.ndarray, multiple: int) -> PaddedLengths:
    """The smallest multiples that hold all rows; lengths_B2: int, of rows and of responses."""
    T, R = lengths_B2.max(axis=0)
    return PaddedLengths(round_up(int(T), multiple), round_up(int(R), multiple))


def choose(counts: Mapping[PaddedLengths, int], *, limit: int = LIMIT) -> tuple[PaddedLengths, ...]:
    """At most `limit` lengths that hold all batches with the fewest padded positions, ascending.

    Up to `limit` different lengths are kept as they are. More are cut, in ascending order, into
    `limit` runs; a run is padded to its largest T and its largest R. The cut is the cheapest one,
    Σ count·(8·T + R), found by dynamic programming over (number of runs, lengths cut so far) in
    limit·n² steps for n different lengths.

    Args:
        counts: how many batches need these lengths; 0: none known, but one may.
        limit: at least 1.
    """
    needed = sorted(counts)
    if len(needed) <= limit:
        return tuple(needed)
    T_N, R_N = np.array(needed).T
    before_N = np.concatenate([[0], np.cumsum([counts[one] for one in needed])])
    size = len(needed)
    cost = np.full((limit + 1, size + 1), np.inf)
    cost[0, 0] = 0.0
    cut = np.zeros((limit + 1, size + 1), np.int64)
    for end in range(1, size + 1):
        # The run start..end-1, for every start.
        R_S = np.maximum.accumulate(R_N[:end][::-1])[::-1]
        run_S = (before_N[end] - before_N[:end]) * (_ROW_COST * T_N[end - 1] + R_S)
        for runs in range(1, limit + 1):
            whole_S = cost[runs - 1, :end] + run_S
            cut[runs, end] = whole_S.argmin()
            cost[runs, end] = whole_S.min()
    chosen, end = [], size
    for runs in range(limit, 0, -1):
        start = cut[runs, end]
        chosen.append(PaddedLengths(int(T_N[end - 1]), int(R_N[start:end].max())))
        end = start
    return tuple(chosen[::-1])


def said(chosen: Sequence[PaddedLengths]) -> str:
    """The lengths, for people: T/R, T/R, …"""
    return ", ".join(f"{T}/{R}" for T, R in chosen)


def smallest(
    needed: PaddedLengths, chosen: Sequence[PaddedLengths], *, separate: bool = False
) -> PaddedLengths:
    """The cheapest of the chosen lengths, as `choose` counts, that holds a batch.

    separate: prompts, T − R, and responses are padded each by itself.

    Raises:
        DataError: none does.
    """
    fitting = [
        one
        for one in chosen
        if one.T >= needed.T
        and one.R >= needed.R
        and (not separate or one.T - one.R >= needed.T - needed.R)
    ]
    if not fitting:
        raise DataError(
            f"a batch of rows of {needed.T} and responses of {needed.R} tokens",
            wanted=f"at most one of (rows, responses) {', '.join(str(tuple(x)) for x in chosen)}",
        )
    return min(fitting, key=lambda one: _ROW_COST * one.T + one.R)


def of_drawn(
    prompt_N: np.ndarray, most: int, *, multiple: int, limit: int = LIMIT, separate: bool = False
) -> tuple[PaddedLengths, ...]:
    """Lengths that hold every batch of these prompts with responses that are yet to be drawn.

    All that such batches can need, if they are at most `limit`: then each is padded as
    `padded_lengths` says. Else R takes limit − 1 even steps up to `most`, T has room for R and a
    prompt that 19 of 20 do not exceed; the last one has room for the longest prompt. A batch that
    does not fit takes the next.

    Args:
        prompt_N: int, tokens of each prompt.
        most: tokens of the longest response.
        multiple: of all lengths.
        limit: at least 1.
        separate: prompts, T − R, and responses are padded each by itself.
    """
    shortest, longest = int(prompt_N.min()), int(prompt_N.max())

    def padded(prompt: int, response: int) -> PaddedLengths:
        R = round_up(response, multiple)
        T = R + round_up(prompt, multiple) if separate else round_up(prompt + response, multiple)
        return PaddedLengths(T, R)

    possible = [
        PaddedLengths(T, R)
        for R in range(multiple, round_up(most, multiple) + 1, multiple)
        for T in range(
            padded(shortest, R - multiple + 1).T, padded(longest, min(R, most)).T + 1, multiple
        )
    ]
    if len(possible) <= limit:
        return tuple(sorted(possible))
    usual = int(np.quantile(prompt_N, 0.95, method="higher"))
    steps = [(usual, -(-most * part // (limit - 1))) for part in range(1, limit)]
    return tuple(sorted({padded(prompt, step) for prompt, step in [*steps, (longest, most)]}))


class PaddingPlan(NamedTuple):
    """The lengths of a stage's batches.

    Attributes:
        chosen: ascending.
        needed: different lengths if each batch had its own.
        padding: padded positions of rows over real tokens, of the batches looked at.
        padding_before: the same if each batch had its own.
    """

    chosen: tuple[PaddedLengths, ...]
    needed: int
    padding: float
    padding_before: float


def plan(
    lengths_N2: np.ndarray,
    batches: Iterable[np.ndarray],
    *,
    multiple: int,
    known: bool = True,
) -> PaddingPlan:
    """What to pad the batches of a stage to.

    Args:
        lengths_N2: int, of all rows and of their responses.
        batches: numbers of the rows of each step; the first 10,000 count.
        multiple: of all padded lengths.
        known: whether the stage takes these batches alone. If not, or with more of them, the
            chosen lengths hold any batch of these rows.
    """
    counts: Counter[PaddedLengths] = Counter()
    real = size = 0
    batches = iter(batches)
    for index_B in islice(batches, COUNTED):
        counts[padded_lengths(lengths_N2[index_B], multiple)] += 1
        real, size = real + int(lengths_N2[index_B, 0].sum()), len(index_B)
    different = len(counts)
    if not known or next(batches, None) is not None:
        counts[padded_lengths(lengths_N2, multiple)] += 0
    chosen = choose(counts)
    before = sum(count * one.T for one, count in counts.items())
    after = sum(count * smallest(one, chosen).T for one, count in counts.items())
    return PaddingPlan(chosen, different, after * size / real - 1, before * size / real - 1)
