"""Scale-only normalisation of the intrinsic reward by a running root mean square.

Subtracting a mean token by token would pay for length: with mean μ < 0, (r − μ)/σ adds −μ/σ to a
sequence for every token that it grows. Dividing by a scale changes no sign and no order.
"""

import jax
import jax.numpy as jnp

Scale = dict[str, jax.Array]


def update_scale(scale: Scale, x: jax.Array, mask: jax.Array, momentum: float) -> Scale:
    """The running mean square after this batch.

    m ← μ·m + (1−μ)·Σ x²·mask / Σ mask, w ← μ·w + (1−μ): m/w is free of the start at 0
    (Kingma & Ba 2015, section 3). An empty mask, or a value that is not finite, changes nothing.

    Args:
        scale: {"mean_square", "weight"} f32 [].
        x: rewards, any shape.
        mask: f32, same shape.
        momentum: μ in [0, 1).
    """
    count = jnp.sum(mask)
    mean = jnp.sum(jnp.square(jnp.where(mask > 0, x, 0.0)) * mask) / jnp.maximum(count, 1.0)
    use = (count > 0) & jnp.isfinite(mean)
    new = {
        "mean_square": momentum * scale["mean_square"] + (1 - momentum) * mean,
        "weight": momentum * scale["weight"] + (1 - momentum),
    }
    return jax.tree.map(lambda n, o: jnp.where(use, n, o), new, scale)


def rms(scale: Scale, eps: float = 1e-8) -> jax.Array:
    """√(m/w), at least eps; 1 before the first update."""
    square = scale["mean_square"] / jnp.maximum(scale["weight"], eps)
    return jnp.where(scale["weight"] > 0, jnp.maximum(jnp.sqrt(square), eps), 1.0)
