"""Rows of groups, in arrays of one row a group and of several."""

import jax
import numpy as np
import pytest

from distill_jax.core import row_groups


def test_worked_by_hand() -> None:
    tree = {"one": np.arange(2), "two": np.arange(8).reshape(4, 2)}
    assert row_groups.group_count(tree) == 2
    nested = row_groups.nested(tree, 2)
    assert nested["one"].tolist() == [[0], [1]]
    assert nested["two"].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    for got, want in zip(*map(jax.tree.leaves, (row_groups.flat(nested), tree)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        row_groups.nested(np.arange(5), 2)
