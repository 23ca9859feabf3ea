"""Named randomness: every draw is a function of the run's key, a stream's name and integers.

Nothing is drawn in sequence, so a draw does not depend on what was drawn before it, on the
batch that it is in, or on the number of devices.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np


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


def kept(key: jax.Array, keep: float, shape: tuple[int, ...]) -> jax.Array:
    """bool [N, I]: True with probability `keep`, for dropout.

    Two rounds of an integer hash of the entry's index, each preceded by a word of the key: some 20
    operations instead of threefry's 120, a fifth of a training step. As threefry's, and
    unlike XLA's own generators (`rbg`), the bits are the same on every platform, and on a mesh
    each device makes those of its rows alone. A mask needs no more; draws of tokens keep threefry.
    """
    words = jax.random.key_data(key)
    row_NI, column_NI = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    index_NI = row_NI * np.uint32(shape[1]) + column_NI
    bits_NI = _mixed(_mixed(index_NI ^ words[0]) ^ words[1])
    return bits_NI < np.uint32(min(round(keep * 2**32), 2**32 - 1))


def _mixed(x: jax.Array) -> jax.Array:
    """lowbias32, a bijection of uint32 (C. Wellons' hash-prospector): each input bit flips each
    output bit in about half of all cases."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
