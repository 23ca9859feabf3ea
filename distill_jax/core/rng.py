"""Named randomness: every draw is a function of the run's key, a stream's name and integers.

Nothing is drawn in sequence, so a draw does not depend on what was drawn before it, on the
batch that it is in, or on the number of devices.
"""

import zlib

import jax
import jax.numpy as jnp


def run_key(seed: int) -> jax.Array:
    """The key that all randomness of a run derives from (typed threefry key, shape [])."""
    return jax.random.key(seed)


def stream_key(key: jax.Array, stream: str, *numbers: int | jax.Array) -> jax.Array:
    """The key of one draw: fold_in(key, stream), then each number in turn.

    Args:
        key: typed key, shape [].
        stream: name of the purpose, e.g. "dropout"; hashed with CRC-32.
        numbers: integers (int32 range) such as step, prompt id, sample; may be traced.
    """
    key = jax.random.fold_in(key, zlib.crc32(stream.encode()))
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def sample_keys(key: jax.Array, prompt_id_B: jax.Array, sample_B: jax.Array) -> jax.Array:
    """One key a row, fold_in(fold_in(key, prompt id), sample): [B] typed keys."""
    one = jax.vmap(lambda p, g: jax.random.fold_in(jax.random.fold_in(key, p), g))
    return one(jnp.asarray(prompt_id_B, jnp.uint32), jnp.asarray(sample_B, jnp.uint32))
