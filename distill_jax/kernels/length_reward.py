"""Published rewards of short answers. Lengths L are tokens that the model wrote, EOS included.

Each function returns what its source pays, for all samples of a group. `rewards/length.py` takes
right answers alone and subtracts their mean, so that a constant such as 1[right] has no effect
there. DAPO's overlong punishment is in `grpo.py`.
"""

import chex
import jax
import jax.numpy as jnp


def linear(length_PG: jax.Array, per_token: float) -> jax.Array:
    """−c·L, f32 [P, G]: the same penalty for every token."""
    return -per_token * length_PG.astype(jnp.float32)


def kimi(length_PG: jax.Array, right_PG: jax.Array) -> jax.Array:
    """λ = ½ − (L − L_min)/(L_max − L_min) of right answers, min(0, λ) of others, f32 [P, G].

    L_min and L_max are the group's, over right and wrong samples; 0 where they are equal.
    Source: Kimi k1.5, arXiv 2501.12599.
    """
    chex.assert_equal_shape([length_PG, right_PG])
    length_PG = length_PG.astype(jnp.float32)
    least_P1 = jnp.min(length_PG, axis=1, keepdims=True)
    range_P1 = jnp.max(length_PG, axis=1, keepdims=True) - least_P1
    value_PG = 0.5 - (length_PG - least_P1) / jnp.maximum(range_P1, 1.0)
    value_PG = jnp.where(range_P1 > 0, value_PG, 0.0)
    return jnp.where(right_PG, value_PG, jnp.minimum(value_PG, 0.0))


def lcpo_exact(
    length_PG: jax.Array, right_PG: jax.Array, target: int, per_token: float
) -> jax.Array:
    """1[right] − α|n* − L|, f32 [P, G]: as long as the target n*. Source: arXiv 2503.04697."""
    chex.assert_equal_shape([length_PG, right_PG])
    away_PG = jnp.abs(target - length_PG.astype(jnp.float32))
    return right_PG.astype(jnp.float32) - per_token * away_PG


def lcpo_max(
    length_PG: jax.Array, right_PG: jax.Array, target: int, per_token: float, delta: float = 0.5
) -> jax.Array:
    """1[right]·clip(α(n* − L) + δ, 0, 1), f32 [P, G]: at most the target n*, softly.

    Source: arXiv 2503.04697.
    """
    chex.assert_equal_shape([length_PG, right_PG])
    left_PG = target - length_PG.astype(jnp.float32)
    return jnp.where(right_PG, jnp.clip(per_token * left_PG + delta, 0.0, 1.0), 0.0)


def alp(length_PG: jax.Array, right_PG: jax.Array, per_token: float) -> jax.Array:
    """1[right] − c·max(p, 1/G)·L, f32 [P, G], with p the group's share of right answers.

    Problems that are solved more often pay more for a token. The source lets wrong answers pay,
    too: whoever uses this keeps right answers alone. Source: arXiv 2506.05256.
    """
    chex.assert_equal_shape([length_PG, right_PG])
    right_PG = right_PG.astype(jnp.float32)
    rate_P1 = jnp.maximum(jnp.mean(right_PG, axis=1, keepdims=True), 1.0 / right_PG.shape[1])
    return right_PG - per_token * rate_P1 * length_PG.astype(jnp.float32)


def o1_pruner(
    length_PG: jax.Array,
    right_PG: jax.Array,
    mean_length_P: jax.Array,
    accuracy_P: jax.Array,
    *,
    weight: float = 5.0,
    low: float = -2.0,
    high: float = 4.0,
) -> jax.Array:
    """clip(L̄/L − 1 + a(1[right] − p̄), low, high), f32 [P, G], without the source's z-score.

    Source: O1-Pruner, arXiv 2501.12570.

    Args:
        length_PG: L, at least 1.
        right_PG: bool.
        mean_length_P, accuracy_P: L̄ and p̄ of the reference's answers to the problem, f32.
        weight: a.
        low, high: the clip.
    """
    chex.assert_equal_shape([length_PG, right_PG])
    shorter_PG = mean_length_P[:, None] / jnp.maximum(length_PG.astype(jnp.float32), 1.0) - 1.0
    better_PG = right_PG.astype(jnp.float32) - accuracy_P[:, None]
    return jnp.clip(shorter_PG + weight * better_PG, low, high)
