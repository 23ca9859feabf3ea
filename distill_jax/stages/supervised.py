"""Supervised batches as a function of (seed, step), and the step that trains on them."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.core.errors import DataError
from distill_jax.data import batching, chat
from distill_jax.data.batching import bare_answer
from distill_jax.stages.context import Context
from distill_jax.training.state import TrainState

# Few row lengths, few compiled programs.
_MULTIPLE = 16


class Rows:
    """Rendered training rows, packed batch by batch.

    Args:
        context: tokenizer, settings.
        problems: training problems.
        answer_only: fraction of the rows that show only the final answer, chosen by (seed, row).
        max_response: longest response in tokens; longer rows are dropped and counted.

    Attributes:
        examples: the rows, rendered.
        problems: the problem of each.
        bare_answers: share of all rows that show the answer alone.
    """

    def __init__(self, context: Context, *, answer_only: float, max_response: int):
        seed = context.config.seed
        problems = context.problems("train").problems
        solutions = [
            batching.training_solution(p, row, seed=seed, answer_only=answer_only)
            for row, p in enumerate(problems)
        ]
        rendered = chat.render_examples(
            context.tokenizer, problems, solutions, context.config.data.chat
        )
        fits = [len(e.response) <= max_response for e in rendered]
        self.examples = list(itertools.compress(rendered, fits))
        self.problems = list(itertools.compress(problems, fits))
        dropped = len(rendered) - len(self.examples)
        if not self.examples:
            raise DataError(
                f"all {dropped} training responses are longer than {max_response} tokens",
                fix="raise sampling.max_new_tokens",
            )
        if dropped:
            limit = f"sampling.max_new_tokens={max_response}"
            context.say(
                f"train, answer_only={answer_only}: {dropped} of {len(rendered)} rows dropped, "
                f"their responses are over {limit}"
            )
        without = sum(not p.solution for p in problems)
        if without:
            context.say(
                f"train: {without} of {len(problems)} problems have no worked solution, "
                "their rows show the bare answer"
            )
        bare = sum(s == bare_answer(p) for s, p in zip(solutions, problems, strict=True))
        self.bare_answers = bare / len(problems)
        self.seed, self.pad_id = seed, context.pad_id

    def batch(self, step: int, size: int) -> dict[str, np.ndarray]:
        """Batch `step`: tokens_BT, prompt_len_B, targets_BR, loss_mask_BR, response_len_B."""
        index = batching.batch_indices(self.seed, step, size, len(self.examples))
        return pack([self.examples[i] for i in index], self.pad_id)


def rows(context: Context, *, answer_only: float) -> Rows:
    """The run's rows with this mix, rendered once; responses fit sampling.max_new_tokens."""
    limit = context.config.sampling.max_new_tokens
    return context.once(
        ("rows", answer_only),
        lambda: Rows(context, answer_only=answer_only, max_response=limit),
    )


def pack(examples: Sequence[chat.Example], pad_id: int) -> dict[str, np.ndarray]:
    """Right-padded rows with response-aligned targets; the loss is on responses alone."""
    T = round_up(max(len(e.prompt) + len(e.response) for e in examples), _MULTIPLE)
    R = round_up(max(len(e.response) for e in examples), _MULTIPLE)
    packed = batching.pack_examples(examples, pad_id=pad_id, sizes=(T,))
    targets_BR = np.full((len(examples), R), pad_id, np.int32)
    for row, example in enumerate(examples):
        targets_BR[row, : len(example.response)] = example.response
    length_B = packed["response_len_B"]
    mask_BR = (np.arange(R)[None, :] < length_B[:, None]).astype(np.float32)
    return {**packed, "targets_BR": targets_BR, "loss_mask_BR": mask_BR}


def step_fn(context: Context, rows: Rows, update: Any, frozen: Any, batch_size: int):
    """The loop's step: draw batch `step`, put it on the mesh, update."""
    where = sharding.batch_sharding(context.mesh)
    zero, one = np.int32(0), np.int32(1)

    def step(state: TrainState, number: int):
        host = rows.batch(number, batch_size)
        tokens = int(host["prompt_len_B"].sum() + host["response_len_B"].sum())
        state, metrics = update(state, frozen, sharding.place(host, where), zero, one)
        epoch = (number + 1) * batch_size / len(rows.examples)
        return state, {**metrics, "epoch": epoch, "step_tokens": tokens}, []

    return step
