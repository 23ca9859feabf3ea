"""The soft value of a state under a policy that reads logits as soft Q-values."""

import chex
import jax
import jax.numpy as jnp


def soft_value(logits_XV: jax.Array, alpha: float) -> jax.Array:
    """V(s) = α·logsumexp(Q(s,·)/α).

    α→0 gives max Q; the policy π = softmax(Q/α) has log π(a|s) = (Q(s,a) − V(s))/α.
    For a whole batch use `models.response.response_scores`, which applies the head in chunks.

    From Q(s,·), float [..., V], and the soft temperature α > 0 (neither that of sampling nor that
    of distillation): V, float32 [...].
    """
    chex.assert_type(logits_XV, float)
    return of_logsumexp(jax.nn.logsumexp(logits_XV.astype(jnp.float32) / alpha, axis=-1), alpha)


def of_logsumexp(lse_X: jax.Array, alpha: float) -> jax.Array:
    """V(s) = α·lse where lse = logsumexp(Q(s,·)/α) is known, as from `models.head.scores`."""
    return alpha * lse_X
