"""Which rows of a batch go into which call of packed rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import DataError
from distill_jax.data.batching import growing_sizes
from distill_jax.rewards import packed_calls
from distill_jax.rewards.packed_calls import PackedCall, RowLengths

SIZES = (4, 6, 10)


def divide(totals, sizes, shards):
    """Rows of so many tokens, each with its own prompt."""
    rows = [RowLengths(of, 1, int(total) - 1) for of, total in enumerate(totals)]
    return packed_calls.divide(rows, sizes, shards)


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
    lengths, sizes = np.random.default_rng(0).integers(1, 96, 30), growing_sizes(96, count=4)
    assert divide(lengths, sizes, 2) == divide(list(lengths), sizes, 2)


def test_a_row_beyond_every_size_is_refused():
    with pytest.raises(DataError, match="11 tokens in one row"):
        divide([3, 11], SIZES, 1)


def test_responses_share_a_prompt_by_hand():
    # 4 + 2 + (1 + 1) tokens in place of 6 + 5; the row of the other prompt goes elsewhere.
    rows = [RowLengths(7, 4, 2), RowLengths(9, 5, 5), RowLengths(7, 4, 1)]
    assert packed_calls.divide(rows, SIZES, 1) == [PackedCall(10, [[1]]), PackedCall(10, [[0, 2]])]
    # Without room for all of them the prompt stands twice.
    rows = [RowLengths(0, 4, 3), RowLengths(0, 4, 4), RowLengths(0, 4, 2)]
    assert packed_calls.divide(rows, SIZES, 1) == [PackedCall(10, [[1]]), PackedCall(10, [[0, 2]])]


def test_calls_that_cannot_hold_the_copies_of_a_prompt_are_not_tried():
    # A packed row of 10 has room for 5 tokens behind a prompt of 5: it stands four times, so the
    # calls of 5 + 16 positions and those up to 35 are none.
    rows = [RowLengths(0, 5, 4)] * 4
    assert sum(next(packed_calls._candidates(rows, SIZES, 1))) == 4 * 5 + 16
    assert positions(packed_calls.divide(rows, SIZES, 1)) == 40


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=30),
    st.lists(st.integers(1, 56), min_size=6, max_size=6),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 6),
)
def test_each_response_has_one_place_behind_its_prompt(rows, prompts, shards, count):
    found = [RowLengths(of, prompts[of], response) for of, response in rows]
    sizes = growing_sizes(96, count=count)
    calls = packed_calls.divide(found, sizes, shards)
    packed = [(call.width, inside) for call in calls for inside in call.places]
    assert sorted(itertools.chain(*(inside for _, inside in packed))) == list(range(len(rows)))
    for width, inside in packed:
        runs = [of for of, _ in itertools.groupby(inside, key=lambda row: found[row].prompt_id)]
        assert len(set(runs)) == len(runs)  # each prompt once
        assert sum(prompts[of] for of in runs) + sum(found[r].response for r in inside) <= width
        assert sum(found[row].response + 1 for row in inside) <= width  # places of the head
