"""Named randomness: equal names give equal draws, everything else gives others."""

import jax
import numpy as np

from distill_jax.core import rng


def data(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_same_name_and_numbers_same_key() -> None:
    key = rng.run_key(7)
    assert data(rng.stream_key(key, "dropout", 3)) == data(rng.stream_key(key, "dropout", 3))


def test_streams_numbers_order_and_seeds_differ() -> None:
    key = rng.run_key(7)
    keys = [
        rng.stream_key(key, "dropout"),
        rng.stream_key(key, "dropout", 3),
        rng.stream_key(key, "dropout", 4),
        rng.stream_key(key, "dropout", 3, 4),
        rng.stream_key(key, "dropout", 4, 3),
        rng.stream_key(key, "sample", 3),
        rng.stream_key(rng.run_key(8), "dropout", 3),
    ]
    assert len({data(k) for k in keys}) == len(keys)


def test_traced_numbers_give_the_same_key() -> None:
    key = rng.run_key(0)
    traced = jax.jit(lambda k, step: rng.stream_key(k, "dropout", step))(key, 5)
    assert data(traced) == data(rng.stream_key(key, "dropout", 5))


def test_stream_key_is_pinned() -> None:
    # crc32(b"123456789") = 0xCBF43926 is the published check value of CRC-32; a change of hash
    # or of folding order would silently change every run.
    key = rng.run_key(1)
    by_hand = jax.random.fold_in(jax.random.fold_in(key, 0xCBF43926), 2)
    assert data(rng.stream_key(key, "123456789", 2)) == data(by_hand)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    key = rng.run_key(3)
    batch = rng.sample_keys(key, np.array([5, 5, 9]), np.array([0, 1, 0]))
    alone = rng.sample_keys(key, np.array([9]), np.array([0]))
    assert data(batch[2]) == data(alone[0])
    assert len({data(k) for k in batch}) == 3
    by_hand = jax.random.fold_in(jax.random.fold_in(key, 5), 1)
    assert data(batch[1]) == data(by_hand)
