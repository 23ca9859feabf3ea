"""Which rows a step takes, and rows as right-padded arrays of few different shapes."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.data.chat import Example
from distill_jax.data.problem import Problem


def batch_indices(
    seed: int,
    step: int,
    batch_size: int,
    num_rows: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Row numbers of a step's batch: a pure function of its arguments, so a run can resume.

    Without weights each epoch is a permutation of all rows and batches run through it, over the
    epoch's end where need be. With weights the batch is drawn without replacement, row i with
    odds weights[i] (Gumbel top-k), as a curriculum asks.

    Args:
        seed: of the data order, 0..2⁶⁴-1.
        step: from 0.
        batch_size: rows wanted.
        num_rows: rows there are.
        weights: [num_rows] float, ≥ 0, any scale; rows with weight 0 are never drawn.

    Returns:
        int64 [batch_size].

    Raises:
        DataError: no rows, bad weights, or fewer rows with weight than the batch needs.
    """
    if num_rows < 1:
        raise DataError("no rows to draw a batch from", fix="check data.source and data.limit")
    if weights is None:
        position = step * batch_size + np.arange(batch_size)
        out = np.empty(batch_size, np.int64)
        for epoch in np.unique(position // num_rows):
            inside = position // num_rows == epoch
            out[inside] = _permutation(seed, int(epoch), num_rows)[position[inside] % num_rows]
        return out
    weight_N = np.asarray(weights, np.float64)
    if weight_N.shape != (num_rows,) or not np.all(np.isfinite(weight_N)) or np.any(weight_N < 0):
        raise DataError(
            f"weights of shape {weight_N.shape}", wanted=f"{num_rows} finite values of 0 or more"
        )
    available = int(np.count_nonzero(weight_N))
    if available < batch_size:
        raise DataError(
            f"{available} rows have weight, the batch needs {batch_size}",
            fix="lower the batch size or give more rows weight",
        )
    gumbel_N = np.random.Generator(np.random.Philox(key=[seed, step])).gumbel(size=num_rows)
    with np.errstate(divide="ignore"):
        score_N = np.log(weight_N) + gumbel_N
    return np.argsort(-score_N, kind="stable")[:batch_size]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    # The counter keeps the stream apart from the weighted draws of step == epoch.
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
    return tuple(sorted({-(-step // multiple) * multiple for step in steps}))


def pack_examples(
    examples: Sequence[Example], *, pad_id: int, sizes: Sequence[int]
) -> dict[str, np.ndarray]:
    """Prompt and response in one compact, right-padded row.

    Args:
        examples: B pairs of prompt and response ids, EOS in the response.
        pad_id: fills the rows' ends; lengths, not ids, say what is padding.
        sizes: row lengths allowed; the smallest that holds the longest row is taken.

    Returns:
        tokens_BT int32, prompt_len_B int32, response_len_B int32.

    Raises:
        DataError: a row is longer than every size, or has an empty prompt or response.
    """
    for row, example in enumerate(examples):
        if not example.prompt or not example.response:
            raise DataError(f"row {row} of a batch has an empty prompt or response")
    rows = [[*example.prompt, *example.response] for example in examples]
    return {
        "tokens_BT": _right_padded(rows, pad_id, sizes),
        "prompt_len_B": np.array([len(e.prompt) for e in examples], np.int32),
        "response_len_B": np.array([len(e.response) for e in examples], np.int32),
    }


def pack_prompts(
    prompts: Sequence[Sequence[int]], *, pad_id: int, sizes: Sequence[int]
) -> dict[str, np.ndarray]:
    """Prompts for the sampler: tokens_PT int32 right padded, length_P int32."""
    return {
        "tokens_PT": _right_padded(prompts, pad_id, sizes),
        "length_P": np.array([len(prompt) for prompt in prompts], np.int32),
    }


def _right_padded(rows: Sequence[Sequence[int]], pad_id: int, sizes: Sequence[int]) -> np.ndarray:
    out = np.full((len(rows), bucket(max(map(len, rows)), sizes)), pad_id, np.int32)
    for row, ids in enumerate(rows):
        out[row, : len(ids)] = ids
    return out


def is_answer_only(seed: int, row: int, fraction: float) -> bool:
    """Whether a row shows its answer alone: a function of (seed, row), true for `fraction`."""
    digest = hashlib.blake2b(f"answer-only/{seed}/{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def training_solution(problem: Problem, row: int, *, seed: int, answer_only: float) -> str:
    """The text to train on: the worked solution, or `#### answer` for a fraction of the rows.

    A problem without a worked solution always gives its answer alone.
    """
    if problem.solution and not is_answer_only(seed, row, answer_only):
        return problem.solution
    return bare_answer(problem)


def bare_answer(problem: Problem) -> str:
    """The answer without its steps, in GSM8K's form."""
    return f"#### {problem.answer}"
