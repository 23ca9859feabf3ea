"""The LM head on chunks of tokens: number of chunks, splitting and joining, both passes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

# Elements of one chunk's float32 logits on a device (268 MB): many tokens share one reading of
# the head.
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


class Cut(NamedTuple):
    """How N tokens are cut.

    Attributes:
        chunks: their number.
        shards: devices that the tokens are split over, of each of which a chunk holds as many;
            1 where they do not divide N.
    """

    chunks: int
    shards: int = 1


def cut_of(tokens: int, vocab: int, chunk_tokens: int | None, shards: int = 1) -> Cut:
    """Chunks of at most `chunk_tokens` tokens of each device; None chooses by CHUNK_ELEMENTS.

    Their number divides a device's tokens if such a one is near, to avoid padding.

    Raises:
        ConfigError: chunk_tokens is below 1.
    """
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens={chunk_tokens}", wanted="at least 1")
    shards = shards if tokens % shards == 0 else 1
    own, size = tokens // shards, chunk_tokens or max(1, CHUNK_ELEMENTS // vocab)
    least = max(1, math.ceil(own / size))
    for count in range(least, 2 * least):
        if own % count == 0:
            return Cut(count, shards)
    return Cut(least, shards)


def split(x: jax.Array, cut: Cut) -> jax.Array:
    """[N, ...] -> [chunks, n, ...]: row i of each device's in chunk i mod chunks; padded with 0.

    Strided, because consecutive rows are on one device of a mesh: each chunk must hold rows of
    every device, otherwise the devices would work one after another.
    """
    chunks, shards = cut
    short = -(x.shape[0] // shards) % chunks
    if short:
        x = x.reshape(shards, -1, *x.shape[1:])
        x = jnp.pad(x, [(0, 0), (0, short)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(-1, *x.shape[2:])
    return jnp.swapaxes(x.reshape(x.shape[0] // chunks, chunks, *x.shape[1:]), 0, 1)


def join(x: jax.Array, cut: Cut, tokens: int) -> jax.Array:
    """The inverse of `split`."""
    x = jnp.swapaxes(x, 0, 1).reshape(cut.shards, -1, *x.shape[2:])
    return x[:, : tokens // cut.shards].reshape(tokens, *x.shape[2:])


def chunked(function: Any, cut: Cut, rows: Any, start: Any = ()) -> tuple[Any, Any]:
    """Scans `function(carry, rows) -> (carry, out)` over chunks of the first axis of `rows`."""
    if cut.chunks == 1:
        return function(start, rows)
    tokens = jax.tree.leaves(rows)[0].shape[0]
    parts = jax.tree.map(lambda x: split(x, cut), rows)
    carry, out = jax.lax.scan(function, start, parts)
    return carry, jax.tree.map(lambda x: join(x, cut, tokens), out)


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
