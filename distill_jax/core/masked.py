"""Statistics over the positions that a mask keeps; an empty mask gives 0, never NaN."""

import jax
import jax.numpy as jnp

Axis = int | tuple[int, ...] | None


def masked_sum(x: jax.Array, mask: jax.Array, axis: Axis = None) -> jax.Array:
    """Σ x·mask; values under mask 0 may be anything, NaN included."""
    return jnp.sum(jnp.where(mask > 0, x, 0.0) * mask, axis=axis)


def masked_mean(x: jax.Array, mask: jax.Array, axis: Axis = None) -> jax.Array:
    """Σ x·mask / Σ mask."""
    return masked_sum(x, mask, axis) / jnp.maximum(jnp.sum(mask, axis=axis), 1.0)


def masked_std(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Population standard deviation (ddof 0) over kept positions; 0 for one position.

    Its gradient is 0 where there is no spread: that of the bare root would be infinite.
    """
    centred = x - masked_mean(x, mask)
    variance = masked_mean(jnp.square(centred), mask)
    spread = variance > 0
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0)


def whiten(x: jax.Array, mask: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """(x − mean)/(std + eps) over kept positions, 0 elsewhere.

    Equal values give 0: their spread is only the rounding error of the mean.
    """
    mean, std = masked_mean(x, mask), masked_std(x, mask)
    out = jnp.where(std > 1e-6 * jnp.abs(mean), (x - mean) / (std + eps), 0.0)
    return jnp.where(mask > 0, out, 0.0)
