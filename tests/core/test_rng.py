"""Named randomness: equal names give equal draws, everything else gives others."""

import jax
import numpy as np
import pytest

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


# --- masks of dropout ---

SHAPE = (512, 384)
mask = jax.jit(rng.kept, static_argnums=(1, 2))


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.001])
def test_a_mask_keeps_its_share_in_every_row_and_column(keep: float) -> None:
    kept = np.asarray(mask(rng.run_key(0), keep, SHAPE), np.float64)
    spread = np.sqrt(keep * (1 - keep))
    assert abs(kept.mean() - keep) < 4 * spread / np.sqrt(kept.size)
    for axis in (0, 1):  # as many standard errors as independent entries would show
        off = (kept.mean(axis=axis) - keep) * np.sqrt(SHAPE[axis]) / spread
        assert 0.85 < off.std() < 1.15 and np.abs(off).max() < 8


def test_masks_of_other_keys_and_of_neighbours_are_unrelated() -> None:
    # Of steps, layers and adapters, as `lora.project` and the update fold them in; then keys that
    # differ in one bit of one word.
    step = rng.stream_key(rng.run_key(0), "update", 5, 0)
    keys = [step, rng.stream_key(rng.run_key(0), "update", 6, 0)]
    keys += [jax.random.fold_in(step, number) for number in (0, 1, 0x5F3759DF)]
    words = np.asarray(jax.random.key_data(step))
    keys += [jax.random.wrap_key_data(words ^ np.uint32(bit)) for bit in ([1, 0], [0, 1])]
    masks = [np.asarray(mask(key, 0.5, SHAPE), np.float64) * 2 - 1 for key in keys]
    # Rows and columns of one mask against their neighbours, too.
    pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    pairs += [(masks[0][1:], masks[0][:-1]), (masks[0][:, 1:], masks[0][:, :-1])]
    for a, b in pairs:
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)


def test_a_mask_is_pinned() -> None:
    # In Python's integers: bits that change would silently change every run with dropout.
    def mixed(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    first, second = data(rng.run_key(3))
    found = np.asarray(mask(rng.run_key(3), 0.7, (5, 7)))
    for i in range(35):
        assert found[divmod(i, 7)] == (mixed(mixed(i ^ first) ^ second) < round(0.7 * 2**32))
