import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import DataError
from distill_jax.data.batching import (
    bare_answer,
    batch_indices,
    bucket,
    bucket_sizes,
    is_answer_only,
    pack_examples,
)
from distill_jax.data.chat import Example
from distill_jax.data.problem import Problem


@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 9),
    rows=st.integers(1, 13),
    epochs=st.integers(1, 3),
)
def test_every_epoch_takes_every_row_once(seed, batch, rows, epochs):
    steps = -(-epochs * rows // batch)
    drawn = np.concatenate([batch_indices(seed, step, batch, rows) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(drawn[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_batches_do_not_depend_on_what_was_drawn_before():
    straight = [batch_indices(7, step, 8, 100) for step in range(30)]
    for step in (29, 3, 17):
        np.testing.assert_array_equal(batch_indices(7, step, 8, 100), straight[step])
    assert (batch_indices(8, 0, 8, 100) != straight[0]).any()


def test_epochs_differ_in_order():
    first, second = (batch_indices(0, step, 50, 50) for step in (0, 1))
    assert (first != second).any()


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        batch_indices(0, 0, 2, 0)


def test_buckets():
    assert [bucket(n, (32, 16, 64)) for n in (1, 16, 17, 64)] == [16, 16, 32, 64]
    with pytest.raises(DataError, match="65 tokens"):
        bucket(65, (16, 64))
    # A quarter, half, three quarters and all of 41, up to multiples of 8.
    assert bucket_sizes(41) == (16, 24, 32, 48)
    assert bucket_sizes(5) == (8,)


def test_packing_by_hand():
    packed = pack_examples([Example([5, 6], [7, 8, 9]), Example([5], [9])], pad_id=0, multiple=2)
    np.testing.assert_array_equal(packed["tokens_BT"], [[5, 6, 7, 8, 9, 0], [5, 9, 0, 0, 0, 0]])
    np.testing.assert_array_equal(packed["targets_BR"], [[7, 8, 9, 0], [9, 0, 0, 0]])
    np.testing.assert_array_equal(packed["loss_mask_BR"], [[1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(packed["prompt_len_B"], [2, 1])
    np.testing.assert_array_equal(packed["response_len_B"], [3, 1])
    assert packed.pop("loss_mask_BR").dtype == np.float32
    assert {a.dtype for a in packed.values()} == {np.dtype(np.int32)}


tokens = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5))
def test_packing_loses_nothing_even_when_the_pad_id_is_a_token(pairs):
    packed = pack_examples([Example(*p) for p in pairs], pad_id=0, multiple=4)
    for row, (prompt, response) in enumerate(pairs):
        p, r = packed["prompt_len_B"][row], packed["response_len_B"][row]
        line = packed["tokens_BT"][row].tolist()
        assert (line[:p], line[p : p + r]) == (prompt, response)
        assert set(line[p + r :]) <= {0}


def test_rows_that_cannot_be_packed_are_refused():
    with pytest.raises(DataError, match="row 1 .* empty"):
        pack_examples([Example([1], [2]), Example([1], [])], pad_id=0, multiple=4)


def test_answer_only_rows_are_a_fraction_fixed_by_seed_and_row():
    marks = np.array([is_answer_only(3, row, 0.7) for row in range(5000)])
    # √(.7·.3/5000) = 0.0065; five of them are 0.033.
    assert abs(marks.mean() - 0.7) < 0.033
    assert not any(is_answer_only(3, row, 0.0) for row in range(100))
    assert all(is_answer_only(3, row, 1.0) for row in range(100))
    # A larger fraction only adds rows.
    assert all(is_answer_only(3, row, 0.8) for row in np.flatnonzero(marks))
    assert any(marks[row] != is_answer_only(4, row, 0.7) for row in range(100))


def test_bare_answers():
    assert bare_answer(Problem("a", "q", "<<1+2=3>>\n#### 3", "3")) == "#### 3"
