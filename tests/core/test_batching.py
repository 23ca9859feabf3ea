import numpy as np

from distill_jax.core.batching import filled, padded, quartered, round_up


def test_round_up():
    assert [round_up(n, 4) for n in (0, 1, 4, 5)] == [4, 4, 4, 8]


def test_filled_repeats_the_last_row():
    np.testing.assert_array_equal(filled([3, 7], 5), [3, 7, 7, 7, 7])
    np.testing.assert_array_equal(filled(np.array([4, 2, 9]), 3), [4, 2, 9])
    assert filled(range(2), 3).dtype == np.int64


def test_padded_sizes_are_powers_of_two_of_the_multiple():
    assert [padded(n, 8) for n in (1, 8, 9, 16, 17, 33, 64)] == [8, 8, 16, 16, 32, 64, 64]


def test_rows_shrink_to_a_quarter_at_a_time():
    def size(live, current, counts=3, parts=1):
        return quartered(live, current, first=64, counts=counts, parts=parts)

    assert [size(live, 64) for live in (64, 17, 16, 1)] == [64, 64, 16, 16]
    assert [size(live, 16) for live in (5, 4)] == [16, 4]
    # 64, 16 and 4 are three; of two the second is the last.
    assert size(1, 4) == 4 and size(1, 16, counts=2) == 16 and size(1, 64, counts=1) == 64
    assert size(1, 64, parts=32) == 64 and size(1, 6) == 6
