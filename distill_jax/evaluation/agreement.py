"""Two models' next-token distributions on the same prompts and responses, batch by batch.

The responses are token ids as they were drawn (`inference.store` keeps them), and both
models read exactly these.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.data import batching
from distill_jax.data.chat import Example
from distill_jax.evaluation import distribution
from distill_jax.evaluation.distribution import Side
from distill_jax.models.head.comparison import TokenComparison
from distill_jax.models.qwen import QwenModel
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run


def compare(
    run: Run,
    student: Loaded,
    teacher: Loaded,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    batch: int,
    multiple: int,
    tick: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """KL both ways, Jensen-Shannon, cosine and top-1 agreement on given responses.

    Args:
        run: mesh, vocabulary.
        student: Q.
        teacher: P; of the same tokenizer.
        prompts: N prompts' token ids.
        responses: N responses' token ids, EOS counted, at least one token each.
        batch: answers compared at a time.
        multiple: row lengths are multiples of this.
        tick: called with the number of responses just compared.

    Returns:
        See `distribution.summary`.
    """
    shards = sharding.batch_shards(run.mesh)
    size = round_up(min(batch, len(prompts)), shards)
    # Rows of similar length share a batch.
    order = np.argsort(
        [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)], kind="stable"
    )
    found: list[tuple[TokenComparison, np.ndarray]] = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        # The repeats that fill the last batch are dropped below.
        examples = [Example(list(prompts[i]), list(responses[i])) for i in filled(rows, size)]
        longest = max(len(e.prompt) + len(e.response) for e in examples)
        packed = batching.pack_examples(
            examples, pad_id=run.data.pad_id, sizes=(round_up(longest, multiple),)
        )
        length_B = packed["response_len_B"]
        placed = sharding.place(
            {name: packed[name] for name in ("tokens_BT", "prompt_len_B")},
            sharding.batch_sharding(run.mesh),
        )
        scores = _scores(
            student.model,
            teacher.model,
            round_up(int(length_B.max()), multiple),
            run.data.vocab,
            student.params,
            teacher.params,
            placed["tokens_BT"],
            placed["prompt_len_B"],
        )
        count = len(rows)
        host = TokenComparison(*(x_BR[:count] for x_BR in sharding.fetch(scores)))
        found.append((host, length_B[:count]))
        if tick is not None:
            tick(count)
    return distribution.summary(found)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _scores(
    student: QwenModel,
    teacher: QwenModel,
    response_size: int,
    vocab: int,
    student_params: Any,
    teacher_params: Any,
    tokens_BT: jax.Array,
    prompt_len_B: jax.Array,
) -> TokenComparison:
    """One compiled program for all checkpoints of a student."""
    return distribution.compare_on_responses(
        Side(student, student_params),
        Side(teacher, teacher_params),
        tokens_BT,
        prompt_len_B,
        response_size=response_size,
        vocab=vocab,
    )
