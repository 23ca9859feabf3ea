"""Differences of two models' next-token distributions at each token, through both heads."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.kernels.divergence import cosine_similarity, divergence_of_logp
from distill_jax.models.head.chunks import chunk_logits, chunked, cut_of, valid_vocab_size


class TokenComparison(NamedTuple):
    """Teacher P against student Q at each token, float32 [N].

    Attributes:
        forward_kl: KL(P‖Q), nats.
        reverse_kl: KL(Q‖P), nats.
        jensen_shannon: ½KL(P‖M) + ½KL(Q‖M) with M = ½(P + Q), nats, 0 to ln 2.
        cosine: P·Q/(|P||Q|) of the probability vectors, 0 to 1.
        top1_agreement: 1 where the same token has the largest probability in both (ties: the
            lowest id), else 0.
    """

    forward_kl: jax.Array
    reverse_kl: jax.Array
    jensen_shannon: jax.Array
    cosine: jax.Array
    top1_agreement: jax.Array


def head_comparison(
    student_hidden_ND: jax.Array,
    student_head_VD: jax.Array,
    teacher_hidden_NE: jax.Array,
    teacher_head_WE: jax.Array,
    *,
    valid_vocab: int | None = None,
    chunk_tokens: int | None = None,
    shards: int = 1,
) -> TokenComparison:
    """All measures in one pass over the chunks, at temperature 1, without gradients.

    For training use `terms.divergence`. Here the logits of both models are computed once for all
    five measures.

    Args:
        student_hidden_ND, student_head_VD: float.
        teacher_hidden_NE, teacher_head_WE: float; W may differ from V.
        valid_vocab: tokens that both share, at most min(V, W); later rows are padding.
            None = all rows, for which V must equal W.
        chunk_tokens: tokens of one chunk on each device; None chooses.
        shards: devices that the tokens are split over.

    Raises:
        ConfigError: an impossible vocabulary or chunk.
    """
    chex.assert_rank([student_hidden_ND, student_head_VD], 2)
    chex.assert_rank([teacher_hidden_NE, teacher_head_WE], 2)
    chex.assert_equal_shape_prefix([student_hidden_ND, teacher_hidden_NE], 1)
    sizes = (student_head_VD.shape[0], teacher_head_WE.shape[0])
    vocab = valid_vocab_size(valid_vocab, *sizes)
    cut = cut_of(student_hidden_ND.shape[0], sum(sizes), chunk_tokens, shards)
    student_head_VD = student_head_VD.astype(student_hidden_ND.dtype)
    teacher_head_WE = teacher_head_WE.astype(teacher_hidden_NE.dtype)

    def one(carry: Any, rows: Any) -> Any:
        student_nD, teacher_nE = rows
        # The shared columns are cut from the logits: cutting the head would copy it.
        teacher_nV = chunk_logits(teacher_nE, teacher_head_WE)[:, :vocab]
        student_nV = chunk_logits(student_nD, student_head_VD)[:, :vocab]
        return carry, _compare(teacher_nV, student_nV)

    return chunked(one, cut, (student_hidden_ND, teacher_hidden_NE))[1]


def _compare(teacher_NV: jax.Array, student_NV: jax.Array) -> TokenComparison:
    logp_NV = jax.nn.log_softmax(teacher_NV, axis=1)
    logq_NV = jax.nn.log_softmax(student_NV, axis=1)
    p_NV, q_NV = jnp.exp(logp_NV), jnp.exp(logq_NV)
    divergence = partial(divergence_of_logp, logp_NV, logq_NV)
    same_N = jnp.argmax(teacher_NV, axis=1) == jnp.argmax(student_NV, axis=1)
    return TokenComparison(
        divergence(kind="forward"),
        divergence(kind="reverse"),
        divergence(kind="jsd", beta=0.5),
        cosine_similarity(p_NV, q_NV),
        same_N.astype(jnp.float32),
    )
