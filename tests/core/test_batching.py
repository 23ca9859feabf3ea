import numpy as np

from distill_jax.core.batching import filled, round_up


def test_round_up():
    assert [round_up(n, 4) for n in (0, 1, 4, 5)] == [4, 4, 4, 8]


def test_filled_repeats_the_last_row():
    np.testing.assert_array_equal(filled([3, 7], 5), [3, 7, 7, 7, 7])
    np.testing.assert_array_equal(filled(np.array([4, 2, 9]), 3), [4, 2, 9])
    assert filled(range(2), 3).dtype == np.int64
