"""Packs the examples of a batch into few rows, whose number and lengths are known before step 0.

A packed row holds several examples, one after another; each is a segment. Packing does not change
which examples a batch has, so loss and gradient differ by rounding alone.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import DataError
from distill_jax.data import padding
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths

# Padded positions over real tokens up to which fewer programs are taken.
ENOUGH = 0.15


def divide(lengths_E2: np.ndarray, rows: int) -> list[list[int]]:
    """Which examples go into each row: numbers of examples, by falling length.

    By falling length each goes to the row with the fewest tokens so far, the first of equals:
    within 4/3 of the smallest possible longest row (Graham 1969), usually within some percent.

    Args:
        lengths_E2: int, of whole examples and of their responses.
        rows: at most E.
    """
    held: list[list[int]] = [[] for _ in range(rows)]
    tokens = [0] * rows
    for example in np.argsort(-lengths_E2[:, 0], kind="stable").tolist():
        row = tokens.index(min(tokens))
        held[row].append(example)
        tokens[row] += int(lengths_E2[example, 0])
    return held


def needed(lengths_E2: np.ndarray, rows: int, multiple: int) -> PaddedLengths:
    """The smallest multiples that hold all rows of a batch, divided into so many."""
    held = divide(lengths_E2, rows)
    return padding.padded_lengths(np.array([lengths_E2[x].sum(axis=0) for x in held]), multiple)


class PackingPlan(NamedTuple):
    """How the batches of a stage are packed.

    Attributes:
        rows: of each batch.
        chosen: their lengths, ascending.
        padding: padded positions of rows over real tokens.
        response_padding: the same of responses.
    """

    rows: int
    chosen: tuple[PaddedLengths, ...]
    padding: float
    response_padding: float


def most_rows(batch: int, longest: int, *, budget: int, parts: int) -> int:
    """Rows of a batch whose examples are all as long as may be; counted as in `plan`."""
    return min(batch, round_up(-(-batch // max(budget // longest, 1)), parts))


def check(lengths_N2: np.ndarray, budget: int, multiple: int) -> None:
    """Raises DataError where an example is longer than a packed row."""
    longest = int(lengths_N2[:, 0].max())
    if round_up(longest, multiple) > budget:
        raise DataError(
            f"packing={budget} with an example of {longest} tokens",
            wanted=f"at least {round_up(longest, multiple)}",
            fix="raise packing, or drop long examples: lower sampling.max_new_tokens",
        )


def plan(
    lengths_N2: np.ndarray,
    batches: Iterable[np.ndarray],
    *,
    budget: int,
    parts: int,
    multiple: int,
) -> PackingPlan:
    """The fewest rows of at most `budget` tokens that hold each batch, and their lengths.

    Of the numbers of lengths from 1 to `padding.LIMIT` it is the smallest with at most 15% of
    padding, else the largest.

    Args:
        lengths_N2: int, of all examples and of their responses.
        batches: numbers of the examples of each step, all of one size.
        budget: tokens of a row; the longest example fits.
        parts: rows are a multiple of it, and so is the size of a batch.
        multiple: of all lengths.

    Raises:
        DataError: an example is longer than the budget.
    """
    check(lengths_N2, budget, multiple)
    of_steps = [lengths_N2[index_E] for index_E in batches]
    most = max(int(lengths_E2[:, 0].sum()) for lengths_E2 in of_steps)
    for rows in range(round_up(-(-most // budget), parts), len(of_steps[0]) + 1, parts):
        counts = Counter(needed(lengths_E2, rows, multiple) for lengths_E2 in of_steps)
        if max(one.T for one in counts) <= budget:
            break
    real_2 = np.sum([lengths_E2.sum(axis=0) for lengths_E2 in of_steps], axis=0)
    for limit in range(1, padding.LIMIT + 1):
        chosen = padding.choose(counts, limit=limit)
        taken = [np.array(padding.smallest(one, chosen)) * counts[one] for one in counts]
        share, of_responses = (rows * np.sum(taken, axis=0) / real_2 - 1).tolist()
        if share <= ENOUGH:
            break
    return PackingPlan(rows, chosen, share, of_responses)


def pack(
    examples: Sequence[Example],
    lengths_E2: np.ndarray,
    *,
    pad_id: int,
    rows: int,
    multiple: int,
    chosen: Sequence[PaddedLengths],
) -> dict[str, np.ndarray]:
    """The examples of a batch in `rows` rows; the loss is on responses alone.

    Args:
        examples: E pairs of prompt and response ids, EOS in the response.
        lengths_E2: of whole examples and of their responses.
        pad_id: fills the rows' ends.
        rows, chosen: of a plan.
        multiple: of all lengths.

    Returns:
        tokens_BT, segment_BT, targets_BR, at_BR, example_BR int32; loss_mask_BR, place_BE float32.
        Segments count from 1 in each row; 0 is padding. at_BR: the positions of the response
        tokens, then T + 1. example_BR: which example each is of; place_BE: 1 where a row holds
        an example.

    Raises:
        DataError: none of the chosen lengths holds a row.
    """
    held = divide(lengths_E2, rows)
    T, R = padding.smallest(needed(lengths_E2, rows, multiple), chosen)
    out = {
        "tokens_BT": np.full((rows, T), pad_id, np.int32),
        "segment_BT": np.zeros((rows, T), np.int32),
        "targets_BR": np.full((rows, R), pad_id, np.int32),
        "at_BR": np.full((rows, R), T + 1, np.int32),
        "example_BR": np.zeros((rows, R), np.int32),
        "loss_mask_BR": np.zeros((rows, R), np.float32),
        "place_BE": np.zeros((rows, len(examples)), np.float32),
    }
    for row, inside in enumerate(held):
        begin = first = 0
        for number, example in enumerate(inside, 1):
            prompt, response = examples[example]
            start = begin + len(prompt)
            end, last = start + len(response), first + len(response)
            out["tokens_BT"][row, begin:end] = [*prompt, *response]
            out["segment_BT"][row, begin:end] = number
            out["targets_BR"][row, first:last] = response
            out["at_BR"][row, first:last] = np.arange(start, end)
            out["example_BR"][row, first:last] = example
            out["loss_mask_BR"][row, first:last] = 1.0
            out["place_BE"][row, example] = 1.0
            begin, first = end, last
    return out
