"""Generalised advantage estimation over the positions that a mask keeps."""

import chex
import jax
import jax.numpy as jnp


def gae(
    reward_BT: jax.Array,
    value_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    gamma: float,
    lam: float | jax.Array,
    bootstrap_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """δ_t = r_t + γ·V_{t+1} − V_t;  A_t = δ_t + γλ·A_{t+1};  return_t = A_t + V_t.

    λ=1 gives the discounted return minus V, λ=0 gives δ. t+1 is the next kept position, so a
    masked position, wherever it stands, is as if removed. Nothing is whitened here.
    Source: arXiv 1506.02438.

    Args:
        reward_BT: r_t, float [B, T].
        value_BT: V(s_t) of the state before token t, float [B, T].
        mask_BT: 1 keeps, 0 drops, [B, T].
        gamma: discount γ in [0, 1].
        lam: λ in [0, 1], one number or one a row, float [B].
        bootstrap_B: V after the last kept position, float [B]; None = 0 (terminal).

    Returns:
        (advantage_BT, return_BT), float32, 0 where the mask is 0, without gradient.
    """
    chex.assert_rank([reward_BT, value_BT, mask_BT], 2)
    chex.assert_equal_shape([reward_BT, value_BT, mask_BT])
    chex.assert_type([reward_BT, value_BT], float)
    kept_BT = mask_BT > 0
    reward_BT = jnp.where(kept_BT, jax.lax.stop_gradient(reward_BT), 0.0).astype(jnp.float32)
    value_BT = jnp.where(kept_BT, jax.lax.stop_gradient(value_BT), 0.0).astype(jnp.float32)
    if bootstrap_B is None:
        bootstrap_B = jnp.zeros(reward_BT.shape[0], jnp.float32)
    chex.assert_shape(bootstrap_B, (reward_BT.shape[0],))
    bootstrap_B = jax.lax.stop_gradient(bootstrap_B).astype(jnp.float32)

    def step(after: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array, jax.Array]):
        advantage_B, next_value_B = after
        reward_B, value_B, kept_B = at
        delta_B = reward_B + gamma * next_value_B - value_B
        advantage_B = jnp.where(kept_B, delta_B + gamma * lam * advantage_B, advantage_B)
        return (advantage_B, jnp.where(kept_B, value_B, next_value_B)), advantage_B

    start = (jnp.zeros_like(bootstrap_B), bootstrap_B)
    _, advantage_TB = jax.lax.scan(step, start, (reward_BT.T, value_BT.T, kept_BT.T), reverse=True)
    advantage_BT = jnp.where(kept_BT, advantage_TB.T, 0.0)
    return advantage_BT, advantage_BT + value_BT


def length_lambda(mask_BT: jax.Array, alpha: float) -> jax.Array:
    """λ_b = 1 − 1/(α·length_b) of each row, at least 0: of long answers rewards reach farther.

    The weights (γλ)^k of one temporal difference sum to about α·length. Source: VAPO,
    arXiv 2504.05118, α = .05.

    Args:
        mask_BT: 1 keeps, 0 drops, [B, T]; length is the kept positions.
        alpha: α > 0.

    Returns:
        λ, float32 [B] in [0, 1).
    """
    length_B = jnp.sum(mask_BT > 0, axis=1, dtype=jnp.float32)
    return jnp.maximum(1.0 - 1.0 / (alpha * jnp.maximum(length_B, 1.0)), 0.0)
