"""Which rows of a batch go into which call of packed rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import DataError
from distill_jax.data.batching import growing_sizes
from distill_jax.rewards.packed_calls import PackedCall, divide

SIZES = (4, 6, 10)


def positions(calls, shards=1):
    return sum(call.width * shards for call in calls)


def test_worked_by_hand():
    # 19 tokens: 10 + 10 are the fewest positions of two widths or three that hold them, and
    # 7 leaves 3 of a 10, which the row of 3 fills; 5 and 4 fill the other but for 1.
    assert divide([4, 7, 3, 5], SIZES, 1) == [PackedCall(10, [[1, 2]]), PackedCall(10, [[3, 0]])]
    # On two devices one call of two rows, 6 long, holds 3 + 3 and 5.
    assert divide([3, 5, 3], SIZES, 2) == [PackedCall(6, [[1], [0, 2]])]
    # A device without a row.
    assert divide([4], SIZES, 2) == [PackedCall(4, [[0], []])]


def test_of_equal_positions_fewer_calls():
    assert divide([2, 2, 2, 2, 2], SIZES, 1) == [PackedCall(10, [[0, 1, 2, 3, 4]])]  # not 4 + 6


def test_a_call_that_is_wide_enough_but_does_not_fit_is_passed_over():
    # 7 + 7 = 14 positions, 10 + 4, hold but one of them; so do 16.
    assert positions(divide([7, 7], SIZES, 1)) == 20


@given(
    st.lists(st.integers(1, 96), min_size=1, max_size=40),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 6),
)
def test_each_row_has_one_place_that_holds_it(lengths, shards, count):
    sizes = growing_sizes(96, count=count)
    calls = divide(lengths, sizes, shards)
    assert {call.width for call in calls} <= set(sizes)
    assert all(len(call.places) == shards for call in calls)
    packed = [(call.width, inside) for call in calls for inside in call.places]
    assert sorted(itertools.chain(*(inside for _, inside in packed))) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in inside) <= width for width, inside in packed)
    # No worse than each row alone in a call's row of the greatest size.
    assert positions(calls) <= -(-len(lengths) // shards) * sizes[-1]


def test_each_row_goes_where_it_leaves_least_room():
    # 16 positions: the first of 5 goes into the 6, which it nearly fills.
    assert divide([5, 5, 5], SIZES, 1) == [PackedCall(10, [[1, 2]]), PackedCall(6, [[0]])]


def test_the_same_rows_go_to_the_same_places():
    lengths = np.random.default_rng(0).integers(1, 96, 30)
    assert divide(lengths, growing_sizes(96, count=4), 2) == divide(
        list(lengths), growing_sizes(96, count=4), 2
    )


def test_a_row_beyond_every_size_is_refused():
    with pytest.raises(DataError, match="11 tokens in one row"):
        divide([3, 11], SIZES, 1)
