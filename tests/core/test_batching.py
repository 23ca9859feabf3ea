import numpy as np

from distill_jax.core.batching import filled, padded, round_up


def test_round_up():
    assert [round_up(n, 4) for n in (0, 1, 4, 5)] == [4, 4, 4, 8]


def test_filled_repeats_the_last_row():
    np.testing.assert_array_equal(filled([3, 7], 5), [3, 7, 7, 7, 7])
    np.testing.assert_array_equal(filled(np.array([4, 2, 9]), 3), [4, 2, 9])
    assert filled(range(2), 3).dtype == np.int64


def test_padded_sizes_are_powers_of_two_of_the_multiple():
    assert [padded(n, 8) for n in (1, 8, 9, 16, 17, 33, 64)] == [8, 8, 16, 16, 32, 64, 64]
