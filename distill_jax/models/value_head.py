"""The value head: one number a state, read off the hidden state."""

import jax
import jax.numpy as jnp


def init(hidden_size: int) -> dict[str, jax.Array]:
    """{"kernel_D": zeros [hidden_size], "bias": 0}, float32: every value starts at exactly 0."""
    return {"kernel_D": jnp.zeros((hidden_size,), jnp.float32), "bias": jnp.zeros((), jnp.float32)}


def apply(params: dict[str, jax.Array], hidden: jax.Array) -> jax.Array:
    """Values float32 [...] of hidden states [..., D] of any float dtype; params: from `init`."""
    return hidden.astype(jnp.float32) @ params["kernel_D"] + params["bias"]
