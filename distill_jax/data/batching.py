"""Chooses the rows of each batch, and packs them into right-padded arrays of a few shapes."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import DataError
from distill_jax.data import padding
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.problem import Problem

# The last word of Philox's counter keeps this stream apart from others under the same key.
_WINDOW = 7


def batch_indices(seed: int, step: int, batch_size: int, num_rows: int) -> np.ndarray:
    """Row numbers of a step's batch, int64 [batch_size]: a pure function, so a run can resume.

    Each epoch is a permutation of all rows; batches run through it and across epochs. The seed of
    the data order is in 0..2⁶⁴-1, steps count from 0.

    Raises:
        DataError: no rows.
    """
    if num_rows < 1:
        raise DataError("no rows to draw a batch from", fix="check data.source and data.limit")
    position = step * batch_size + np.arange(batch_size)
    out = np.empty(batch_size, np.int64)
    for epoch in np.unique(position // num_rows):
        inside = position // num_rows == epoch
        out[inside] = _permutation(seed, int(epoch), num_rows)[position[inside] % num_rows]
    return out


def windowed_indices(
    seed: int, step: int, batch_size: int, length_N: np.ndarray, window: int
) -> np.ndarray:
    """As `batch_indices`, with rows of like lengths in a batch: less padding.

    The rows of `window` steps in a row are sorted by length and cut into their batches, whose order
    is drawn: a batch differs, the rows of a window do not. With window=1 it is `batch_indices`.
    """
    number, inside = divmod(step, window)
    index = batch_indices(seed, number, window * batch_size, len(length_N))
    if window == 1:
        return index
    bits = np.random.Philox(key=[seed, number], counter=[0, 0, 0, _WINDOW])
    place = np.random.Generator(bits).permutation(window)[inside]
    by_length = index[np.argsort(length_N[index], kind="stable")]
    return by_length[place * batch_size : (place + 1) * batch_size]


def dealt_indices(
    seed: int, step: int, batch_size: int, length_N: np.ndarray, window: int
) -> np.ndarray:
    """As `windowed_indices`, with nearly as many tokens in each batch: for packed rows.

    The rows of `window` steps in a row are dealt by falling length, one to each batch a round, the
    longer to those with fewer tokens. With window=1 it is `batch_indices`.
    """
    number, inside = divmod(step, window)
    index = batch_indices(seed, number, window * batch_size, len(length_N))
    falling = index[np.argsort(-length_N[index], kind="stable")].reshape(batch_size, window)
    total_W, dealt = np.zeros(window, np.int64), []
    for round_W in falling:
        given_W = np.empty_like(round_W)
        given_W[np.argsort(total_W, kind="stable")] = round_W
        total_W += length_N[given_W]
        dealt.append(given_W[inside])
    return np.array(dealt) if window > 1 else index


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 1])
    return np.random.Generator(bits).permutation(num_rows)


def bucket(length: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes that holds `length`.

    Raises:
        DataError: none does.
    """
    fitting = [size for size in sizes if size >= length]
    if not fitting:
        raise DataError(
            f"{length} tokens in one row",
            wanted=f"at most {max(sizes)}",
            fix="raise the token limit or drop long rows",
        )
    return min(fitting)


def bucket_sizes(longest: int, *, count: int = 4, multiple: int = 8) -> tuple[int, ...]:
    """Up to `count` sizes in even steps, each a multiple, the last holding `longest`."""
    steps = [-(-longest * part // count) for part in range(1, count + 1)]
    return tuple(sorted({round_up(step, multiple) for step in steps}))


def growing_sizes(longest: int, *, count: int, multiple: int = 16) -> tuple[int, ...]:
    """Up to `count` sizes from 2/5 of `longest` up to it, each the same factor larger.

    They are multiples, the last holds `longest`.
    """
    steps = [longest * 0.4 ** (1 - part / max(1, count - 1)) for part in range(count - 1)]
    return tuple(sorted({round_up(round(step), multiple) for step in [*steps, longest]}))


def pack_examples(
    examples: Sequence[Example],
    *,
    pad_id: int,
    multiple: int,
    chosen: Sequence[PaddedLengths] = (),
) -> dict[str, np.ndarray]:
    """Prompt and response in one compact, right-padded row; the loss is on responses alone.

    Args:
        examples: B pairs of prompt and response ids, EOS in the response.
        pad_id: fills the rows' ends; lengths, not ids, say what is padding.
        multiple: T and R are the longest row's and response's lengths, rounded up to it.
        chosen: instead the cheapest of these that holds them (`padding.smallest`).

    Returns:
        tokens_BT, targets_BR, prompt_len_B, response_len_B int32; loss_mask_BR float32.

    Raises:
        DataError: a row has an empty prompt or response; none of the chosen lengths holds a row.
    """
    for row, example in enumerate(examples):
        if not example.prompt or not example.response:
            raise DataError(f"row {row} of a batch has an empty prompt or response")
    lengths_B2 = lengths_of(examples)
    needed = padding.padded_lengths(lengths_B2, multiple)
    T, R = padding.smallest(needed, chosen) if chosen else needed
    length_B = lengths_B2[:, 1].astype(np.int32)
    targets_BR = right_padded([e.response for e in examples], pad_id, R)
    return {
        "tokens_BT": right_padded([[*e.prompt, *e.response] for e in examples], pad_id, T),
        "prompt_len_B": np.array([len(e.prompt) for e in examples], np.int32),
        "response_len_B": length_B,
        "targets_BR": targets_BR,
        "loss_mask_BR": (np.arange(targets_BR.shape[1]) < length_B[:, None]).astype(np.float32),
    }


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """Tokens of each row and of its response, int64 [N, 2]."""
    return np.array([(len(e.prompt) + len(e.response), len(e.response)) for e in examples])


def right_padded(rows: Sequence[Sequence[int]], pad_id: int, columns: int) -> np.ndarray:
    """int32 [rows, columns]."""
    out = np.full((len(rows), columns), pad_id, np.int32)
    for row, ids in enumerate(rows):
        out[row, : len(ids)] = ids
    return out


def is_answer_only(seed: int, row: int, fraction: float) -> bool:
    """Whether a row shows its answer alone: a function of (seed, row), true for `fraction`."""
    return in_share(f"answer-only/{seed}/{row}", fraction)


def in_share(name: str, fraction: float) -> bool:
    """Whether what has this name is in a share: by its hash, true for `fraction` of all names."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def bare_answer(problem: Problem) -> str:
    """The answer without its steps, in GSM8K's form."""
    return f"#### {problem.answer}"
