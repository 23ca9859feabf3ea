"""Divergence of a student from a teacher's stored top k, through the student's head in chunks."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch, top_k_tail_divergence
from distill_jax.models.head_chunks import (
    chunk_logits,
    chunked,
    num_chunks,
    through_head,
    valid_vocab_size,
)


class _Wanted(NamedTuple):
    """The static part of a call."""

    kind: str
    beta: float
    temperature: float
    vocab: int
    chunks: int


def head_top_k_divergence(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    ids_NK: jax.Array,
    teacher_logp_NK: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
    valid_vocab: int | None = None,
    chunk_tokens: int | None = None,
) -> jax.Array:
    """T²·divergence over k listed tokens and one bucket for all others, at each token.

    A lower bound of `head_divergence`, which it equals where k is the whole vocabulary; see
    `kernels.divergence.top_k_tail_divergence`. The gradient goes to the student only.

    Args:
        hidden_ND: the student's states, float [N, D].
        head_VD: its output embedding, float [V, D].
        ids_NK: int32 [N, K], the teacher's most probable tokens, all below valid_vocab.
        teacher_logp_NK: float32 [N, K], the teacher's log-probabilities of them at temperature T
            over the whole vocabulary, as `head_top_k` gives them.
        kind, beta, temperature, valid_vocab, chunk_tokens: as for `head_divergence`.

    Returns:
        float32 [N], nats.

    Raises:
        ConfigError: an impossible kind, beta, temperature or vocabulary.
    """
    chex.assert_rank([hidden_ND, head_VD, ids_NK, teacher_logp_NK], 2)
    chex.assert_equal_shape([ids_NK, teacher_logp_NK])
    chex.assert_equal_shape_prefix([hidden_ND, ids_NK], 1)
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    wanted = _Wanted(
        kind=branch(kind, float(beta)),
        beta=float(beta),
        temperature=float(temperature),
        vocab=valid_vocab_size(valid_vocab, head_VD.shape[0]),
        chunks=num_chunks(hidden_ND.shape[0], head_VD.shape[0], chunk_tokens),
    )
    teacher_logp_NK = jax.lax.stop_gradient(teacher_logp_NK)
    return _divergence(wanted, hidden_ND, head_VD, ids_NK, teacher_logp_NK)


def _value(wanted: _Wanted, logits_NV: jax.Array, ids_NK: jax.Array, teacher_NK: jax.Array):
    logq_NV = jax.nn.log_softmax(logits_NV / wanted.temperature, axis=1)
    return top_k_tail_divergence(
        teacher_NK,
        jnp.take_along_axis(logq_NV, ids_NK, axis=1, mode="clip"),
        kind=wanted.kind,
        beta=wanted.beta,
        temperature=wanted.temperature,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divergence(wanted: _Wanted, hidden_ND: Any, head_VD: Any, ids_NK: Any, teacher_NK: Any):
    return _forward(wanted, hidden_ND, head_VD, ids_NK, teacher_NK, False)[0]


def _forward(
    wanted: _Wanted, hidden_ND: Any, head_VD: Any, ids_NK: Any, teacher_NK: Any, gradient: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The divergence [N] and, if asked, its gradient in the hidden states [N, D]."""
    head_VD = head_VD.astype(hidden_ND.dtype)

    def one(carry: Any, rows: Any) -> Any:
        hidden_nD, *listed = rows
        logits_nV = chunk_logits(hidden_nD, head_VD, wanted.vocab)
        if not gradient:
            return carry, (_value(wanted, logits_nV, *listed), None)
        value_n, back = jax.vjp(lambda z: _value(wanted, z, *listed), logits_nV)
        (grad_nV,) = back(jnp.ones_like(value_n))
        return carry, (value_n, through_head(grad_nV, hidden_nD, head_VD, None, True)[1])

    return chunked(one, wanted.chunks, (hidden_ND, ids_NK, teacher_NK))[1]


def _fwd(wanted: _Wanted, hidden: Any, head: Any, ids: Any, teacher: Any):
    arrays = (hidden.value, head.value, ids.value, teacher.value)
    if head.perturbed:
        # The head's gradient needs each token's cotangent first: the chunks are computed again.
        value_N, _ = _forward(wanted, *arrays, False)
        return value_N, (arrays, None, () if hidden.perturbed else None)
    # Frozen head: a token's gradient only scales with its cotangent, so the same pass gives it.
    value_N, slope_ND = _forward(wanted, *arrays, True)
    return value_N, (None, slope_ND, ())


def _bwd(wanted: _Wanted, saved: Any, cotangent_N: Any):
    arrays, slope_ND, want_hidden = saved
    if arrays is None:
        return (slope_ND * cotangent_N[:, None]).astype(slope_ND.dtype), None, None, None
    hidden_ND, head_VD, ids_NK, teacher_NK = arrays
    cast_VD = head_VD.astype(hidden_ND.dtype)

    def one(head_grad_VD: Any, rows: Any) -> Any:
        hidden_nD, cotangent_n, *listed = rows
        logits_nV = chunk_logits(hidden_nD, cast_VD, wanted.vocab)
        (grad_nV,) = jax.vjp(lambda z: _value(wanted, z, *listed), logits_nV)[1](cotangent_n)
        return through_head(grad_nV, hidden_nD, cast_VD, head_grad_VD, want_hidden is not None)

    start_VD = jnp.zeros(head_VD.shape, jnp.float32)
    rows = (hidden_ND, cotangent_N, ids_NK, teacher_NK)
    head_grad_VD, hidden_grad_ND = chunked(one, wanted.chunks, rows, start_VD)
    return hidden_grad_ND, head_grad_VD.astype(head_VD.dtype), None, None


_divergence.defvjp(_fwd, _bwd, symbolic_zeros=True)
