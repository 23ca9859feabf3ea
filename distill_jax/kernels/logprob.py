"""The positions whose logits score the response tokens: the only place that shifts by one.

A sequence is right padded and compact: prompt ++ response ++ pad. The logits at position t−1
score the token at t, so response token t is scored at prompt_len + t − 1.
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp


def gather_response(hidden_BTD: jax.Array, prompt_len_B: jax.Array, size: int) -> jax.Array:
    """The hidden states [B, R, D] that score the response tokens, R = size; 0 past the sequence.

    prompt_len_B is at least 1.
    """
    chex.assert_rank(prompt_len_B, 1)
    return shifted(hidden_BTD, prompt_len_B.astype(jnp.int32) - 1, size)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted(x_BTX: jax.Array, offset_B: jax.Array, size: int) -> jax.Array:
    """x[b, offset_b + i] for i in 0..size−1, 0 outside of x: [B, size, ...].

    The gradient is a gather too (rows are contiguous), because scatter is slow on CPU and not
    partitioned well over a mesh. offset_B: int32, of any sign.
    """
    return _take(x_BTX, offset_B[:, None] + jnp.arange(size, dtype=jnp.int32))


def _shifted_fwd(x_BTX: jax.Array, offset_B: jax.Array, size: int) -> Any:
    # The empty array carries T to the backward pass.
    return shifted(x_BTX, offset_B, size), (offset_B, jnp.zeros((x_BTX.shape[1], 0)))


def _shifted_bwd(size: int, saved: Any, grad_BRX: jax.Array) -> Any:
    offset_B, carry_T0 = saved
    return shifted(grad_BRX, -offset_B, carry_T0.shape[0]), None


shifted.defvjp(_shifted_fwd, _shifted_bwd)


@jax.custom_vjp
def gather_packed(hidden_BTD: jax.Array, at_BR: jax.Array) -> jax.Array:
    """The hidden states [B, R, D] that score the tokens at these positions; 0 past the sequence.

    For rows that hold the responses of several examples. The gradient is a gather too, as that of
    `shifted`.

    Args:
        hidden_BTD: float.
        at_BR: int32, positions of response tokens, at least 1, strictly ascending in a row up to
            its last one; from there on T + 1, which no token has.
    """
    return _take(hidden_BTD, at_BR - 1)


def _packed_fwd(hidden_BTD: jax.Array, at_BR: jax.Array) -> Any:
    return gather_packed(hidden_BTD, at_BR), (at_BR, jnp.zeros((hidden_BTD.shape[1], 0)))


def _packed_bwd(saved: Any, grad_BRD: jax.Array) -> Any:
    at_BR, carry_T0 = saved
    next_T = jnp.arange(carry_T0.shape[0], dtype=jnp.int32) + 1
    slot_BT = jax.vmap(lambda at_R: jnp.searchsorted(at_R, next_T))(at_BR)
    last = at_BR.shape[1] - 1
    found_BT = jnp.take_along_axis(at_BR, jnp.minimum(slot_BT, last), axis=1) == next_T
    return _take(grad_BRD, jnp.where(found_BT, slot_BT, -1)), None


gather_packed.defvjp(_packed_fwd, _packed_bwd)


def _take(x_BTX: jax.Array, index_BR: jax.Array) -> jax.Array:
    size = x_BTX.shape[1]
    inside_BR = (index_BR >= 0) & (index_BR < size)
    index_BR = jnp.clip(index_BR, 0, size - 1)
    out = jax.vmap(lambda row, index: row[index])(x_BTX, index_BR)
    inside = inside_BR.reshape(inside_BR.shape + (1,) * (out.ndim - 2))
    return jnp.where(inside, out, jnp.zeros((), out.dtype))
