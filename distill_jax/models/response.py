"""Scores of the response tokens of a batch: hidden states, then the chunked head.

Prompt positions, and response positions beyond the batch's longest answer, never reach the head.
"""

from typing import Any, NamedTuple

import jax

from distill_jax.kernels.logprob import gather_response
from distill_jax.models.head.scores import head_scores
from distill_jax.models.qwen import QwenModel


class ResponseScores(NamedTuple):
    """logit_BR, logp_BR f32; lse_ABR f32 one a soft temperature; entropy_BR f32 or None;
    hidden_BRD, the states that the tokens were drawn from."""

    logit_BR: jax.Array
    logp_BR: jax.Array
    lse_ABR: jax.Array
    entropy_BR: jax.Array | None
    hidden_BRD: jax.Array


def response_scores(
    model: QwenModel,
    params: Any,
    tokens_BT: jax.Array,
    prompt_len_B: jax.Array,
    targets_BR: jax.Array,
    *,
    temperature: float = 1.0,
    alphas: tuple[float, ...] = (),
    vocab: int | None = None,
    entropy: bool = False,
    dropout_key: jax.Array | None = None,
) -> ResponseScores:
    """Scores each response token by the logits of the position before it.

    Args:
        model: student or teacher.
        params: {"base", "lora"}.
        tokens_BT: int32, right padded, prompt and response without a gap.
        prompt_len_B: int32, at least 1.
        targets_BR: int32, the response's tokens; what stands beyond its length is scored too
            and means nothing.
        temperature: divides the logits of logp and entropy.
        alphas: soft temperatures of lse_ABR.
        vocab: tokens that exist.
        entropy: whether to return the entropy at `temperature`.
        dropout_key: for LoRA dropout; None is deterministic.
    """
    B, R = targets_BR.shape
    hidden_BTD = model.hidden(params, tokens_BT, dropout_key=dropout_key)
    # Positions past the sequence belong to padding and give states of 0.
    hidden_BRD = gather_response(hidden_BTD, prompt_len_B, R)
    scores = head_scores(
        hidden_BRD.reshape(B * R, -1),
        model.head_VD(params),
        targets_BR.reshape(-1),
        temperature=temperature,
        alphas=alphas,
        valid_vocab=vocab,
        entropy=entropy,
    )
    return ResponseScores(
        scores.logit_N.reshape(B, R),
        scores.logp_N.reshape(B, R),
        scores.lse_AN.reshape(len(alphas), B, R),
        None if scores.entropy_N is None else scores.entropy_N.reshape(B, R),
        hidden_BRD,
    )
