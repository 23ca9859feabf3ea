"""The k most probable tokens at each position, through the chunked head; no gradient."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.models.head.chunks import (
    NEVER,
    chunk_logits,
    chunked,
    cut_of,
    valid_vocab_size,
)
from distill_jax.models.head.listed import TopK


def head_top_k(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    k: int,
    *,
    valid_vocab: int | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    mesh: Mesh | None = None,
) -> TopK:
    """Top-k of log softmax(hidden·headᵀ / temperature) over the tokens that exist.

    Args:
        hidden_ND: hidden states that predict the tokens, float [N, D]; its dtype is the matmul's
            input dtype. Sums and results are float32.
        head_VD: output embedding, float [V, D].
        k: tokens kept, 1 to valid_vocab.
        valid_vocab: rows from here on are padding and never enter; None = all rows count.
        temperature: divides the logits, > 0; for distillation the same T as the student's.
        chunk_tokens: tokens of one chunk on each device; None chooses.
        mesh: the tokens are split over its data and fsdp axes. Without it XLA gathers the logits
            of a chunk on every device, because it does not split a top-k by rows.

    Raises:
        ConfigError: an impossible k, vocabulary, temperature or chunk.
    """
    chex.assert_rank([hidden_ND, head_VD], 2)
    vocab = valid_vocab_size(valid_vocab, head_VD.shape[0])
    if not 1 <= k <= vocab:
        raise ConfigError(f"k={k}", wanted=f"1 to {vocab}")
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    hidden_ND, head_VD = jax.lax.stop_gradient((hidden_ND, head_VD.astype(hidden_ND.dtype)))

    def read(logits_nV: jax.Array) -> TopK:
        _, ids_nK = jax.lax.top_k(logits_nV, k)
        return TopK(ids_nK, *listed_and_tail(logits_nV / temperature, ids_nK))

    def one(carry: Any, hidden_nD: jax.Array) -> Any:
        logits_nV = chunk_logits(hidden_nD, head_VD, vocab)
        if mesh is None or logits_nV.shape[0] % sharding.batch_shards(mesh):
            return carry, read(logits_nV)
        rows = sharding.batch_sharding(mesh).spec
        return carry, jax.shard_map(read, mesh=mesh, in_specs=rows, out_specs=rows)(logits_nV)

    shards = 1 if mesh is None else sharding.batch_shards(mesh)
    cut = cut_of(hidden_ND.shape[0], head_VD.shape[0], chunk_tokens, shards)
    return chunked(one, cut, hidden_ND)[1]


def listed_and_tail(logits_NV: jax.Array, ids_NK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of the listed tokens [N, K], and log of the mass on all others [N]."""
    # From the peak, as log_softmax: a large logit less a large logsumexp would cancel.
    peak_N1 = jax.lax.stop_gradient(jnp.max(logits_NV, axis=1, keepdims=True))
    logits_NV = logits_NV - peak_N1
    total_N = jnp.log(jnp.sum(jnp.exp(logits_NV), axis=1))
    listed_NK = jnp.take_along_axis(logits_NV, ids_NK, axis=1, mode="clip")
    # Row by row: on a mesh no row's logits leave their device.
    others_NV = jax.vmap(lambda row_V, ids_K: row_V.at[ids_K].set(NEVER))(logits_NV, ids_NK)
    log_tail_N = jax.nn.logsumexp(others_NV, axis=1) - total_N
    return listed_NK - total_N[:, None], log_tail_N
