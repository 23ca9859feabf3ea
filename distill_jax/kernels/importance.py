"""Weights on tokens: the sampler's probabilities against the trainer's, and high entropy."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.ppo import log_ratio

MODES = ("truncate", "mask", "none")


def importance_weight(
    trainer_logp_BR: jax.Array,
    behaviour_logp_BR: jax.Array,
    mask_BR: jax.Array,
    *,
    mode: str = "truncate",
    cap: float = 3.0,
) -> jax.Array:
    """w = π_trainer/π_sampler of each token, bounded; corrects for a sampler that differs.

    "truncate": min(w, cap). "mask": w where w ≤ cap, else 0 (the token is not trained on).
    "none": 1. Multiply the token losses by it.

    Args:
        trainer_logp_BR: log-probabilities by the trainer's forward pass, before the update.
        behaviour_logp_BR: those recorded by the sampler, float [B, R].
        mask_BR: 1 on sampled tokens, [B, R].
        mode: "truncate", "mask" or "none".
        cap: C, commonly 2 to 3.

    Returns:
        weight, float [B, R], without gradient, 0 where the mask is 0.

    Raises:
        ConfigError: another mode.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r}", wanted=f"one of {', '.join(MODES)}")
    weight_BR = jnp.exp(
        jax.lax.stop_gradient(log_ratio(trainer_logp_BR, behaviour_logp_BR, mask_BR))
    )
    if mode == "truncate":
        weight_BR = jnp.minimum(weight_BR, cap)
    elif mode == "mask":
        weight_BR = jnp.where(weight_BR <= cap, weight_BR, 0.0)
    else:
        weight_BR = jnp.ones_like(weight_BR)
    return jnp.where(mask_BR > 0, weight_BR, 0.0)


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
