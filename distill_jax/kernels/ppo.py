"""Losses of proximal policy optimisation for each token, and estimators of the KL."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

KL_KINDS = ("k1", "k3")


def log_ratio(logp_BT: jax.Array, other_logp_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """log π − log π_other, 0 where the mask is 0.

    Selected before any exp, so that masked values cannot make a gradient NaN.
    """
    chex.assert_rank([logp_BT, other_logp_BT, mask_BT], 2)
    chex.assert_equal_shape([logp_BT, other_logp_BT, mask_BT])
    chex.assert_type([logp_BT, other_logp_BT], float)
    return jnp.where(mask_BT > 0, logp_BT - other_logp_BT, 0.0)


def clipped_surrogate(
    ratio_BT: jax.Array,
    advantage_BT: jax.Array,
    mask_BT: jax.Array,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> jax.Array:
    """−min(ρA, clip(ρ, 1−ε_low, 1+ε_high)A), the policy loss. Source: arXiv 1707.06347.

    Args:
        ratio_BT: ρ = exp(log π − log π_old) from `log_ratio`, both at the same temperature, float
            [B, T]; carries the gradient.
        advantage_BT: A_t, float [B, T] or [B, 1]; its gradient is stopped.
        mask_BT: 1 on trained tokens, [B, T].
        clip_low, clip_high: ε_low, ε_high.

    Returns:
        loss of each token, float [B, T], 0 where the mask is 0. Not averaged.
    """
    advantage_BT = jax.lax.stop_gradient(jnp.where(mask_BT > 0, advantage_BT, 0.0))
    clipped_BT = jnp.clip(ratio_BT, 1.0 - clip_low, 1.0 + clip_high)
    loss_BT = -jnp.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)
    return jnp.where(mask_BT > 0, loss_BT, 0.0)


def value_loss(
    value_BT: jax.Array,
    old_value_BT: jax.Array,
    return_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    clip: float = 0.2,
) -> jax.Array:
    """½·max((V−R)², (clip(V, V_old−ε_v, V_old+ε_v)−R)²).

    Args:
        value_BT: V_t in training, float [B, T]; carries the gradient.
        old_value_BT: V_t at the start of the update, float [B, T].
        return_BT: R_t = A_t + V_old_t before any whitening, float [B, T].
        mask_BT: 1 keeps, 0 drops, [B, T].
        clip: ε_v; `float("inf")` never clips.

    Returns:
        loss of each token, float [B, T], 0 where the mask is 0. Not averaged.
    """
    chex.assert_rank([value_BT, old_value_BT, return_BT, mask_BT], 2)
    chex.assert_equal_shape([value_BT, old_value_BT, return_BT, mask_BT])
    kept_BT = mask_BT > 0
    value_BT = jnp.where(kept_BT, value_BT, 0.0)
    old_BT = jax.lax.stop_gradient(jnp.where(kept_BT, old_value_BT, 0.0))
    return_BT = jax.lax.stop_gradient(jnp.where(kept_BT, return_BT, 0.0))
    clipped_BT = jnp.clip(value_BT, old_BT - clip, old_BT + clip)
    error_BT = jnp.maximum(jnp.square(value_BT - return_BT), jnp.square(clipped_BT - return_BT))
    return 0.5 * error_BT


def kl_estimate(
    logp_BT: jax.Array, ref_logp_BT: jax.Array, mask_BT: jax.Array, *, kind: str
) -> jax.Array:
    """Estimates of KL(π‖π_ref) from samples of π, with l = log π − log π_ref.

    k1 = l: unbiased; as a loss its on-policy gradient has mean zero, so it belongs in the reward.
    k3 = e^{−l} − 1 + l: unbiased and ≥ 0; a loss.

    Args:
        logp_BT: log π of the sampled tokens, float [B, T].
        ref_logp_BT: log π_ref of the same, float [B, T]; its gradient is stopped.
        mask_BT: 1 keeps, 0 drops, [B, T].
        kind: "k1" or "k3".

    Returns:
        estimate for each token, float [B, T], 0 where the mask is 0.

    Raises:
        ConfigError: another kind.
    """
    l_BT = log_ratio(logp_BT, jax.lax.stop_gradient(ref_logp_BT), mask_BT)
    if kind == "k1":
        return l_BT
    if kind == "k3":
        # expm1 keeps the digits that e^{-l} − 1 loses for small l.
        return jnp.expm1(-l_BT) + l_BT
    raise ConfigError(f"KL estimator {kind!r}", wanted=f"one of {', '.join(KL_KINDS)}")


def unbiased_kl(
    logp_BT: jax.Array, old_logp_BT: jax.Array, ref_logp_BT: jax.Array, mask_BT: jax.Array
) -> jax.Array:
    """ρ·k3 with ρ = π/π_old, gradient through both: that of KL(π‖π_ref), on average over π_old.

    The gradient of k3 alone does not contain how π changes what is sampled, also where ρ = 1.
    Source: DeepSeek-V3.2, arXiv 2512.02556; TRL's `use_bias_correction_kl` of a token's ratio.

    Args:
        logp_BT: log π of the sampled tokens, float [B, T]; carries the gradient.
        old_logp_BT: log π_old, which drew them, float [B, T]; its gradient is stopped.
        ref_logp_BT: log π_ref, float [B, T]; its gradient is stopped.
        mask_BT: 1 keeps, 0 drops, [B, T].

    Returns:
        estimate for each token, float [B, T], 0 where the mask is 0.
    """
    ratio_BT = jnp.exp(log_ratio(logp_BT, jax.lax.stop_gradient(old_logp_BT), mask_BT))
    return ratio_BT * kl_estimate(logp_BT, ref_logp_BT, mask_BT, kind="k3")
