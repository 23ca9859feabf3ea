"""Weights on tokens: probabilities of sampler, trainer and policy compared, and high entropy."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.ppo import log_ratio

MODES = ("truncate", "mask", "sequence_truncate", "sequence_mask", "none")


def importance_weight(
    trainer_logp_BR: jax.Array,
    behaviour_logp_BR: jax.Array,
    mask_BR: jax.Array,
    *,
    mode: str = "truncate",
    cap: float = 3.0,
    floor: float = 0.0,
) -> jax.Array:
    """w = π_trainer/π_sampler of each token, bounded; corrects for a sampler that differs.

    "truncate": w clipped to [floor, cap]. "mask": w inside of [floor, cap], else 0 (the token is
    not trained on; with both bounds IcePop). "sequence_truncate", "sequence_mask": the same of the
    product of w over the row's kept tokens, for each of them. "none": 1. Multiply the token losses
    by it. TRL's names: token_truncate, token_mask, sequence_truncate, sequence_mask.

    Args:
        trainer_logp_BR: log-probabilities by the trainer's forward pass, before the update.
        behaviour_logp_BR: those recorded by the sampler, float [B, R].
        mask_BR: 1 on sampled tokens, [B, R].
        mode: one of MODES.
        cap: C, commonly 2 to 3.
        floor: least weight, below cap; 0: no bound.

    Returns:
        weight, float [B, R], without gradient, 0 where the mask is 0.

    Raises:
        ConfigError: another mode.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r}", wanted=f"one of {', '.join(MODES)}")
    l_BR = jax.lax.stop_gradient(log_ratio(trainer_logp_BR, behaviour_logp_BR, mask_BR))
    if mode.startswith("sequence"):
        l_BR = jnp.broadcast_to(jnp.sum(l_BR, axis=1, keepdims=True), l_BR.shape)
    weight_BR = jnp.exp(l_BR)
    if mode.endswith("truncate"):
        weight_BR = jnp.clip(weight_BR, floor, cap) if floor else jnp.minimum(weight_BR, cap)
    elif mode.endswith("mask"):
        weight_BR = jnp.where((weight_BR >= floor) & (weight_BR <= cap), weight_BR, 0.0)
    else:
        weight_BR = jnp.ones_like(weight_BR)
    return jnp.where(mask_BR > 0, weight_BR, 0.0)


def off_policy_mask(
    logp_BR: jax.Array,
    behaviour_logp_BR: jax.Array,
    advantage_BR: jax.Array,
    mask_BR: jax.Array,
    *,
    threshold: float,
) -> jax.Array:
    """0 where A < 0 in a row whose mean of log π_sampler − log π is above δ, else 1.

    A sample that the policy has moved away from is not pushed down further; what is rewarded stays.
    The mean estimates KL(π_sampler‖π). Source: DeepSeek-V3.2, arXiv 2512.02556, eq. 9.

    Args:
        logp_BR: log π in training, float [B, R]; its gradient is stopped.
        behaviour_logp_BR: recorded by the sampler, float [B, R].
        advantage_BR: A, float [B, R] or [B, 1].
        mask_BR: 1 on trained tokens, [B, R].
        threshold: δ, nats a token.

    Returns:
        float32 [B, R] of 0 and 1, 0 where the mask is 0.
    """
    l_BR = jax.lax.stop_gradient(log_ratio(behaviour_logp_BR, logp_BR, mask_BR))
    length_B1 = jnp.maximum(jnp.sum(mask_BR > 0, axis=1, keepdims=True), 1)
    near_B1 = jnp.sum(l_BR, axis=1, keepdims=True) / length_B1 <= threshold
    return ((mask_BR > 0) & (near_B1 | (advantage_BR >= 0))).astype(jnp.float32)


def top_entropy_mask(entropy_BR: jax.Array, mask_BR: jax.Array, fraction: float) -> jax.Array:
    """Keeps the ⌈fraction·n⌉ tokens of highest entropy among the n kept ones of the batch.

    Ties with the last one are kept too. Source: arXiv 2506.01939.

    Args:
        entropy_BR: entropy of the policy at each token, nats, float [B, R].
        mask_BR: 1 keeps, 0 drops, [B, R].
        fraction: in (0, 1]; 1 keeps all.

    Returns:
        float32 [B, R] of 0 and 1, at most mask_BR.

    Raises:
        ConfigError: a fraction outside (0, 1].
    """
    chex.assert_equal_shape([entropy_BR, mask_BR])
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"fraction={fraction}", wanted="more than 0, at most 1")
    entropy_BR = jnp.where(mask_BR > 0, jax.lax.stop_gradient(entropy_BR), -jnp.inf)
    kept = jnp.sum(mask_BR > 0)
    # In float32 0.6·25 is a little over 15 and must not count as 16.
    wanted = jnp.ceil(fraction * kept * (1.0 - 1e-6)).astype(jnp.int32)
    order = jnp.sort(entropy_BR.reshape(-1), descending=True)
    threshold = order[jnp.clip(wanted - 1, 0, order.size - 1)]
    return ((mask_BR > 0) & (entropy_BR >= threshold)).astype(jnp.float32)
