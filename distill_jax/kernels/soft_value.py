"""The soft value of a state under a policy read off logits as soft Q-values."""

import chex
import jax
import jax.numpy as jnp


def soft_value(logits_XV: jax.Array, alpha: float) -> jax.Array:
    """V(s) = α·logsumexp(Q(s,·)/α).

    α→0 gives max Q; the policy π = softmax(Q/α) has log π(a|s) = (Q(s,a) − V(s))/α.
    For a whole batch use `models.head.scores`, which never holds the vocabulary axis.

    Args:
        logits_XV: Q(s,·), float [..., V].
        alpha: soft temperature α > 0 (neither the sampling nor the distillation temperature).

    Returns:
        V, float32 [...].
    """
    chex.assert_type(logits_XV, float)
    return alpha * jax.nn.logsumexp(logits_XV.astype(jnp.float32) / alpha, axis=-1)
