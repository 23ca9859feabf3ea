"""How batches become arrays of few shapes: given responses padded or packed, drawn ones padded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.data import batching, packing, padding
from distill_jax.data.chat import Example
from distill_jax.run.run import Run
from distill_jax.training.ahead import Ahead


class Batches(NamedTuple):
    """How the examples of a batch become its arrays, and the lengths that these may have."""

    pack: Callable[[Sequence[Example]], dict[str, np.ndarray]]
    chosen: Sequence[padding.PaddedLengths]


def padded(
    run: Run,
    examples: Sequence[Example],
    batches: Iterable[np.ndarray],
    *,
    multiple: int,
    known: bool = True,
) -> Batches:
    """One example a row, in few lengths: see `padding.plan` and `batching.pack_examples`."""
    planned = padding.plan(batching.lengths_of(examples), batches, multiple=multiple, known=known)
    few = len(planned.chosen) == planned.needed
    why = "" if few else f" ({planned.padding_before:.0%} with all {planned.needed} lengths)"
    run.say(
        f"train: batches are padded to rows/responses of {padding.said(planned.chosen)}, "
        f"padding is {planned.padding:.0%} of their tokens{why}"
    )

    def pack(batch: Sequence[Example]) -> dict[str, np.ndarray]:
        return batching.pack_examples(
            batch, pad_id=run.data.pad_id, multiple=multiple, chosen=planned.chosen
        )

    return Batches(pack, planned.chosen)


def packed(
    run: Run,
    examples: Sequence[Example],
    batches: Iterable[np.ndarray],
    *,
    budget: int,
    accumulate: int,
    multiple: int,
) -> Batches:
    """Several examples a row of at most `budget` tokens: see `packing.plan` and `packing.pack`.

    Raises:
        DataError: an example is longer than the budget.
    """
    parts = accumulate * sharding.batch_shards(run.mesh)
    planned = packing.plan(
        batching.lengths_of(examples), batches, budget=budget, parts=parts, multiple=multiple
    )
    run.say(
        f"train: batches are packed into {planned.rows} rows, of tokens/response tokens "
        f"{padding.said(planned.chosen)}, padding is {planned.padding:.0%} of their tokens"
    )

    def pack(batch: Sequence[Example]) -> dict[str, np.ndarray]:
        return packing.pack(
            batch,
            batching.lengths_of(batch),
            pad_id=run.data.pad_id,
            rows=planned.rows,
            multiple=multiple,
            chosen=planned.chosen,
        )

    return Batches(pack, planned.chosen)


def of_drawn(
    run: Run,
    prompts: Sequence[Sequence[int]],
    *,
    multiple: int,
    limit: int,
    separate: bool = False,
) -> tuple[padding.PaddedLengths, ...]:
    """What batches of these prompts with drawn responses are padded to: see `padding.of_drawn`.

    limit: 0: (), each batch to its own. separate: of prompts and responses, each by itself.
    """
    if not limit:
        return ()
    prompt_N = np.array([len(prompt) for prompt in prompts])
    most = run.config.sampling.response_tokens
    chosen = padding.of_drawn(prompt_N, most, multiple=multiple, limit=limit, separate=separate)
    run.say(f"train: drawn responses are padded to rows/responses of {padding.said(chosen)}")
    return chosen


def drawn_columns(run: Run) -> int:
    """Columns of a rollout's arrays: what its responses have room for, in one turn or several."""
    sampling = run.config.sampling
    return sampling.max_new_tokens if run.data.replies() is None else sampling.response_tokens


def compiles_ahead(run: Run) -> bool:
    """Whether threads compile programs of later steps.

    Not on CPU, where compiling would take the cores that the steps need, nor in several processes,
    which have to compile in one order.
    """
    return run.mesh.devices.flat[0].platform != "cpu" and jax.process_count() == 1


def compiled_ahead(
    run: Run,
    program: Callable[..., Any],
    chosen: Sequence[padding.PaddedLengths],
    *,
    name: str = "update",
    fixed: int = 2,
    columns: int | None = None,
) -> Callable[..., Any]:
    """The program; with several lengths a thread compiles it for each before they are needed.

    name, fixed: see `Ahead`. columns: that arrays of responses have at most; None: those chosen.
    """
    if len(chosen) < 2 or not compiles_ahead(run):
        return program
    sizes = [
        # Of prompts by themselves: see `padding.smallest`.
        {"T": T, "R": R if columns is None else min(R, columns), "PS": T - R}
        for T, R in chosen
    ]
    return Ahead(program, sizes, run.say, name=name, fixed=fixed)


def tokens_of(host: Mapping[str, np.ndarray]) -> int:
    """Tokens of a batch without padding."""
    if "segment_BT" in host:
        return int((host["segment_BT"] > 0).sum())
    return int(host["prompt_len_B"].sum() + host["response_len_B"].sum())


def response_tokens_of(host: Mapping[str, np.ndarray]) -> int:
    """Tokens of a batch's responses without padding."""
    if "segment_BT" in host:
        return int(host["loss_mask_BR"].sum())
    return int(host["response_len_B"].sum())
