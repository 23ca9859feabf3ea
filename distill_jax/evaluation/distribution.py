"""How near a student's next-token distribution is to its teacher's, on the same prefixes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.evaluation import intervals
from distill_jax.kernels.logprob import gather_response
from distill_jax.models.head.comparison import TokenComparison, head_comparison
from distill_jax.models.qwen import QwenModel

# Measures between 0 and 1; the others have no upper bound to cut an interval at.
SHARES = ("cosine", "top1_agreement")


class Side(NamedTuple):
    """A model and its weights {"base", "lora"}."""

    model: QwenModel
    params: Any


def compare_on_responses(
    student: Side,
    teacher: Side,
    tokens_BT: jax.Array,
    prompt_len_B: jax.Array,
    *,
    response_size: int,
    vocab: int,
    chunk_tokens: int | None = None,
) -> TokenComparison:
    """Compares both distributions at every response token, teacher-forced on given responses.

    Both models read the same tokens; the token at place t is compared in the distributions one
    place before it, which have not seen it. Pure, so it can be jitted with the models, the
    sizes and the vocabulary static. Call it on batches as they come out of the sampler.

    Args:
        student: Q.
        teacher: P; may have another width and more or fewer logit rows.
        tokens_BT: int32, right padded, prompt and response without a gap.
        prompt_len_B: int32, at least 1.
        response_size: R, at least the longest response's tokens.
        vocab: tokens that exist in both; logit rows beyond never enter.
        chunk_tokens: tokens of one chunk of the heads; None chooses.

    Returns:
        float32 [B, R] of each measure; what stands beyond a response's length means nothing.
    """

    def hidden_ND(side: Side) -> jax.Array:
        hidden_BTD = side.model.hidden(side.params, tokens_BT)
        hidden_BRD = gather_response(hidden_BTD, prompt_len_B, response_size)
        return hidden_BRD.reshape(-1, hidden_BRD.shape[-1])

    scores = head_comparison(
        hidden_ND(student),
        student.model.head_VD(student.params),
        hidden_ND(teacher),
        teacher.model.head_VD(teacher.params),
        valid_vocab=vocab,
        chunk_tokens=chunk_tokens,
    )
    shape = (tokens_BT.shape[0], response_size)
    return TokenComparison(*(x_N.reshape(shape) for x_N in scores))


def response_means(scores: TokenComparison, response_len_B: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of each measure over the tokens of each response, float64 [B]; nan for an empty one."""
    length_B = np.asarray(response_len_B)
    mask_BR = np.arange(scores.cosine.shape[1]) < length_B[:, None]
    out = {}
    for name, x_BR in scores._asdict().items():
        # Chosen, not multiplied: what stands behind a response may be anything.
        total_B = np.where(mask_BR, np.asarray(x_BR, np.float64), 0.0).sum(axis=1)
        out[name] = np.divide(
            total_B, length_B, out=np.full(len(length_B), np.nan), where=length_B > 0
        )
    return out


def token_means(
    batches: Sequence[tuple[TokenComparison, np.ndarray]],
) -> dict[str, float | int | None]:
    """Mean of each measure over all response tokens of all batches.

    Args:
        batches: of (scores [B, R], response_len_B); R may differ.

    Returns:
        Measure -> mean (nats for the divergences), None without a token; "tokens", "responses".
    """
    lengths = [np.asarray(length_B) for _, length_B in batches]
    tokens = int(sum(length_B.sum() for length_B in lengths))
    out: dict[str, float | int | None] = {}
    for name in TokenComparison._fields:
        total = 0.0
        for (scores, _), length_B in zip(batches, lengths, strict=True):
            mean_B = response_means(scores, length_B)[name]
            total += float(np.sum(np.where(length_B > 0, mean_B * length_B, 0.0)))
        out[name] = total / tokens if tokens else None
    return {**out, "tokens": tokens, "responses": sum(map(len, lengths))}


def summary(batches: Sequence[tuple[TokenComparison, np.ndarray]]) -> dict[str, Any]:
    """The mean of each measure over all response tokens, with its interval over responses.

    Args:
        batches: of (scores [B, R], response_len_B), each response once and none empty.

    Returns:
        JSON-able {"tokens", "responses", measure: {"mean", "low", "high" (95%)}}; divergences in
        nats; None without a response.
    """
    means = token_means(batches)
    out: dict[str, Any] = {name: means.pop(name) for name in ("tokens", "responses")}
    size_N = np.concatenate([length_B for _, length_B in batches]) if batches else np.zeros(0)
    each = [response_means(scores, length_B) for scores, length_B in batches]
    for name in means:
        estimate: dict[str, Any] = dict.fromkeys(intervals.Estimate._fields)
        if len(size_N):
            total_N = np.concatenate([one[name] for one in each]) * size_N
            most = 1.0 if name in SHARES else np.inf
            estimate = intervals.ratio_interval(total_N, size_N, most)._asdict()
        out[name] = estimate
    return out
