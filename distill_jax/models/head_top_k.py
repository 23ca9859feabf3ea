"""The k most probable tokens at each position, through the chunked head; no gradient."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.models.head_scores import head_scores


def head_top_k(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    k: int,
    *,
    valid_vocab: int | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Top-k of log softmax(hidden·headᵀ / temperature) over the tokens that exist.

    The log-probabilities are those of the full distribution, not renormalised over the k: what is
    missing to 1 is the tail's, as `kernels.divergence.top_k_tail_divergence` takes it.

    Args:
        hidden_ND: states that the next tokens are drawn from, float [N, D]; its dtype is the
            matmul's input dtype. Sums and results are float32.
        head_VD: output embedding, float [V, D].
        k: tokens kept, 1 to valid_vocab.
        valid_vocab: rows from here on are padding and never enter; None = all rows count.
        temperature: divides the logits, > 0; with distillation temperature T the student's
            log-probabilities must be taken at T, too.
        chunk_tokens: tokens of one chunk; None chooses.

    Returns:
        logp_NK float32, falling along K, and ids_NK int32, the lower id first where two are equal.

    Raises:
        ConfigError: an impossible k, vocabulary, temperature or chunk.
    """
    chex.assert_rank([hidden_ND, head_VD], 2)
    if k < 1:
        raise ConfigError(f"k={k}", wanted="at least 1")
    scores = head_scores(
        jax.lax.stop_gradient(hidden_ND),
        jax.lax.stop_gradient(head_VD),
        jnp.zeros(hidden_ND.shape[0], jnp.int32),  # no token is asked for
        alphas=(temperature,),
        valid_vocab=valid_vocab,
        top_k=k,
        chunk_tokens=chunk_tokens,
    )
    assert scores.top_logits_NK is not None and scores.top_ids_NK is not None
    return scores.top_logits_NK / temperature - scores.lse_AN[0][:, None], scores.top_ids_NK
