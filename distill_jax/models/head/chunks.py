"""The LM head on chunks of tokens: number of chunks, splitting and joining, both passes."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

# Elements of one chunk's float32 logits (268 MB): many tokens share one reading of the head.
CHUNK_ELEMENTS = 2**26
# Replaces −inf at logits of padding rows; finite, so that 0·x stays 0.
NEVER = -1e30


def valid_vocab_size(valid_vocab: int | None, *rows: int) -> int:
    """Number of real tokens in heads of so many rows each, the student's first.

    Raises:
        ConfigError: valid_vocab is outside 1 to the fewest rows, or None where the rows differ.
    """
    if valid_vocab is None and len(set(rows)) > 1:
        got = f"heads of {rows[0]} (student) and {rows[1]} (teacher) rows"
        raise ConfigError(got, fix="set valid_vocab to the number of tokens that both share")
    most = min(rows)
    vocab = most if valid_vocab is None else valid_vocab
    if not 0 < vocab <= most:
        raise ConfigError(f"valid_vocab={valid_vocab}", wanted=f"1 to the head's rows, {most}")
    return vocab


def num_chunks(tokens: int, vocab: int, chunk_tokens: int | None) -> int:
    """The number of chunks: a divisor of `tokens` if one is near, to avoid padding."""
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens={chunk_tokens}", wanted="at least 1")
    size = chunk_tokens or max(1, CHUNK_ELEMENTS // vocab)
    least = max(1, math.ceil(tokens / size))
    for count in range(least, 2 * least):
        if tokens % count == 0:
            return count
    return least


def split(x: jax.Array, chunks: int) -> jax.Array:
    """[N, ...] -> [chunks, n, ...], row i in chunk i mod chunks; padded with zeros.

    Strided, because consecutive rows are on one device of a mesh: each chunk must hold rows of
    every device, otherwise the devices would work one after another.
    """
    short = -x.shape[0] % chunks
    if short:
        x = jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1))
    return jnp.swapaxes(x.reshape(x.shape[0] // chunks, chunks, *x.shape[1:]), 0, 1)


def join(x: jax.Array, tokens: int) -> jax.Array:
    """The inverse of `split`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])[:tokens]


def chunked(function: Any, chunks: int, rows: Any, start: Any = ()) -> tuple[Any, Any]:
    """Scans `function(carry, rows) -> (carry, out)` over chunks of the first axis of `rows`."""
    if chunks == 1:
        return function(start, rows)
    tokens = jax.tree.leaves(rows)[0].shape[0]
    parts = jax.tree.map(lambda x: split(x, chunks), rows)
    carry, out = jax.lax.scan(function, start, parts)
    return carry, jax.tree.map(lambda x: join(x, tokens), out)


def chunk_logits(
    hidden_ND: jax.Array, head_VD: jax.Array, valid_vocab: int | None = None
) -> jax.Array:
    """float32 [N, V]; padding rows get NEVER (slicing would copy the head)."""
    logits_NV = jax.lax.dot_general(
        hidden_ND, head_VD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    if valid_vocab is not None and valid_vocab < head_VD.shape[0]:
        logits_NV = jnp.where(jnp.arange(head_VD.shape[0]) < valid_vocab, logits_NV, NEVER)
    return logits_NV


def through_head(
    grad_NV: jax.Array,
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    head_grad_VD: jax.Array | None,
    want_hidden: bool,
) -> tuple[jax.Array | None, jax.Array | None]:
    """(head gradient plus this chunk's, hidden gradient); None for one that is not wanted."""
    grad_NV = grad_NV.astype(hidden_ND.dtype)
    if head_grad_VD is not None:
        head_grad_VD += jax.lax.dot_general(
            grad_NV, hidden_ND, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
    if not want_hidden:
        return head_grad_VD, None
    hidden_grad_ND = jax.lax.dot_general(
        grad_NV, head_VD, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return head_grad_VD, hidden_grad_ND.astype(hidden_ND.dtype)
