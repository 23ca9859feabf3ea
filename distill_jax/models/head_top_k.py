"""The k most probable tokens at each position, from hidden states and the LM head in chunks."""

import jax
import jax.numpy as jnp

from distill_jax.models.head_scores import head_scores


def head_top_k(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    k: int,
    *,
    valid_vocab: int | None = None,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities over the whole vocabulary, and tokens, of the k largest logits.

    Args:
        hidden_ND: states that the tokens are drawn from, float [N, D].
        head_VD: output embedding, float [V, D].
        k: tokens listed, 1 to valid_vocab.
        valid_vocab: rows from here on are padding and never enter; None = all rows count.
        temperature: T > 0; softmax(logits/T) over all tokens, so the k do not sum to 1.

    Returns:
        logp_NK float32, falling; ids_NK int32.

    Raises:
        ConfigError: an impossible k, vocabulary or temperature.
    """
    scores = head_scores(
        hidden_ND,
        head_VD,
        jnp.zeros(hidden_ND.shape[0], jnp.int32),
        alphas=(temperature,),
        valid_vocab=valid_vocab,
        top_k=k,
    )
    assert scores.top_logits_NK is not None and scores.top_ids_NK is not None
    logp_NK = scores.top_logits_NK / temperature - scores.lse_AN[0][:, None]
    return logp_NK, scores.top_ids_NK.astype(jnp.int32)
