"""Where response tokens stand and which positions score them: the only place that shifts by one.

A sequence is right padded and compact: prompt ++ response ++ pad. The logits at position t−1
score the token at t, so response token t is scored at prompt_len + t − 1.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp


def response_positions(prompt_len_B: jax.Array, size: int) -> jax.Array:
    """Positions whose hidden states (or logits) score response tokens 0..size−1.

    Args:
        prompt_len_B: prompt tokens of each row, int [B], at least 1.
        size: R, the response axis.

    Returns:
        int32 [B, R]; may point past the sequence where the row has no such response token.
    """
    chex.assert_rank(prompt_len_B, 1)
    return prompt_len_B.astype(jnp.int32)[:, None] + jnp.arange(size, dtype=jnp.int32) - 1


def response_mask(response_len_B: jax.Array, size: int) -> jax.Array:
    """1.0 on response tokens (EOS counted in the length), float32 [B, R]."""
    return (jnp.arange(size) < response_len_B[:, None]).astype(jnp.float32)


def response_tokens(tokens_BT: jax.Array, prompt_len_B: jax.Array, size: int) -> jax.Array:
    """The response tokens, response-aligned: [B, R]; 0 past the end of the sequence."""
    # Token t stands one after the position that scores it.
    return _take(tokens_BT, response_positions(prompt_len_B, size) + 1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def gather_response(hidden_BTD: jax.Array, prompt_len_B: jax.Array, size: int) -> jax.Array:
    """The hidden states that score the response tokens, response-aligned.

    Args:
        hidden_BTD: [B, T, D].
        prompt_len_B: int [B].
        size: R.

    Returns:
        [B, R, D], 0 past the end of the sequence. Its gradient is a gather too (rows are
        contiguous), because scatter is slow on CPU and not partitioned well over a mesh.
    """
    return _take(hidden_BTD, response_positions(prompt_len_B, size))


def _gather_fwd(hidden_BTD: jax.Array, prompt_len_B: jax.Array, size: int):
    # The empty array carries T to the backward pass.
    carry_T0 = jnp.zeros((hidden_BTD.shape[1], 0))
    return gather_response(hidden_BTD, prompt_len_B, size), (prompt_len_B, carry_T0)


def _gather_bwd(size: int, saved, grad_BRD: jax.Array):
    prompt_len_B, carry_T0 = saved
    back_BT = jnp.arange(carry_T0.shape[0]) - prompt_len_B.astype(jnp.int32)[:, None] + 1
    return _take(grad_BRD, back_BT), None


gather_response.defvjp(_gather_fwd, _gather_bwd)


def _take(x_BTX: jax.Array, index_BR: jax.Array) -> jax.Array:
    size = x_BTX.shape[1]
    inside_BR = (index_BR >= 0) & (index_BR < size)
    index_BR = jnp.clip(index_BR, 0, size - 1)
    out = jax.vmap(lambda row, index: row[index])(x_BTX, index_BR)
    inside = inside_BR.reshape(inside_BR.shape + (1,) * (out.ndim - 2))
    return jnp.where(inside, out, jnp.zeros((), out.dtype))


def token_logp(
    logits_XV: jax.Array, targets_X: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """log softmax(logits/T)[target], float32 [...]: the plain formula, for reference and tests."""
    chex.assert_equal_shape_prefix([logits_XV, targets_X], targets_X.ndim)
    logp_XV = jax.nn.log_softmax(logits_XV.astype(jnp.float32) / temperature, axis=-1)
    return jnp.take_along_axis(logp_XV, targets_X[..., None], axis=-1)[..., 0]
