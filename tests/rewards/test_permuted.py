"""Control `permuted`: who gets whose rewards, how rows of other lengths are filled."""

import collections

import jax
import numpy as np

from distill_jax.core import rng
from distill_jax.rewards import permuted

KEY = rng.run_key(0)


def test_sources_are_permutations_of_each_group():
    for own in (True, False):
        found = np.asarray(permuted.sources(KEY, 50, 4, own=own))
        assert np.array_equal(np.sort(found, axis=1), np.tile(np.arange(4), (50, 1)))
        assert len({tuple(row) for row in found}) > 5
        assert np.array_equal(found, permuted.sources(KEY, 50, 4, own=own))
        other = permuted.sources(jax.random.fold_in(KEY, 1), 50, 4, own=own)
        assert not np.array_equal(found, other)


def test_own_rewards_are_as_frequent_as_others_or_never_given():
    # 3000 groups of three: each of the 6 permutations 500 times, or each of the 2 cycles 1500.
    for own, kinds in ((True, 6), (False, 2)):
        found = np.asarray(permuted.sources(KEY, 3000, 3, own=own))
        counts = collections.Counter(tuple(row) for row in found.tolist())
        assert len(counts) == kinds
        spread = 4.5 * np.sqrt(3000 / kinds)
        assert all(abs(n - 3000 / kinds) < spread for n in counts.values())
    assert not np.any(found == np.arange(3))


def test_values_by_hand():
    source = np.array([[1, 0], [0, 1]])
    assert permuted.sequences(np.array([1.0, 2, 3, 4]), source).tolist() == [2, 1, 3, 4]
    mask = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.float32)
    reward = np.array([[2, 9, 4, 9], [5, 6, 7, 8], [1, 2, 9, 9], [9, 9, 9, 9]], np.float32)
    # Row 0 gets 5, 6 at its two tokens; row 1 gets 2, 4 and then their mean twice.
    found = permuted.tokens(reward, mask, source)
    assert found.tolist() == [[5, 0, 6, 0], [2, 4, 3, 3], [1, 2, 0, 0], [0, 0, 0, 0]]
