"""The bonus of right answers by hand; it never turns right and wrong round."""

import hypothesis
import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from distill_jax.kernels import bonus

ALL = jnp.ones((4, 1))
RIGHT = jnp.array([True, True, False, False])
DECIDED = jnp.array([True] * 4)
# Dr. GRPO's advantages of [1, 1, 0, 0]
ADVANTAGE = jnp.array([0.5, 0.5, -0.5, -0.5])


def test_by_hand():
    # lengths 100 and 300 of the right ones at −1e-3 a token: mean −.2, so +.1 and −.1
    length = -1e-3 * jnp.array([[100.0], [300.0], [50.0], [9e9]])
    centred = bonus.centred_over_right(length, RIGHT, ALL, 4)
    np.testing.assert_allclose(centred[:, 0], [0.1, -0.1, 0, 0], atol=1e-6)
    out, met = bonus.add_bounded(ADVANTAGE, centred, RIGHT, DECIDED, ALL, 4)
    np.testing.assert_allclose(out[:, 0], [0.6, 0.4, -0.5, -0.5], atol=1e-6)
    assert met.tolist() == [False]


def test_bound_is_half_the_gap():
    # gap 1: at most ±.5
    out, met = bonus.add_bounded(
        ADVANTAGE, jnp.array([[3.0], [-3.0], [0], [0]]), RIGHT, DECIDED, ALL, 4
    )
    np.testing.assert_allclose(out[:, 0], [1.0, 0.0, -0.5, -0.5])
    assert met.tolist() == [True]


def test_a_group_all_right_has_no_bound_and_one_of_no_gap_gets_nothing():
    right = jnp.array([True, True, True, False])
    advantage = jnp.array([0.0, 0.0, 0.2, 0.3])  # a wrong one above a right one
    change = jnp.array([[2.0], [-2.0], [1.0], [0.0]])
    out, met = bonus.add_bounded(advantage, change, right, DECIDED, ALL, 2)
    np.testing.assert_allclose(out[:, 0], [2.0, -2.0, 0.2, 0.3])
    assert met.tolist() == [False, True]


def test_the_bound_of_groups_without_both_kinds():
    right = jnp.array([True, True, False, False])
    change = jnp.array([[2.0], [-2.0], [0.0], [0.0]])
    # all right; all wrong; a group of both kinds keeps its own bound, 1/2
    out, met = bonus.add_bounded(jnp.zeros(4), change, right, DECIDED, ALL, 2, alone=0.25)
    np.testing.assert_allclose(out[:, 0], [0.25, -0.25, 0, 0])
    assert met.tolist() == [True, False]
    out, _ = bonus.add_bounded(ADVANTAGE, change, right, DECIDED, ALL, 4, alone=0.25)
    np.testing.assert_allclose(out[:, 0], [1.0, 0.0, -0.5, -0.5])


def test_a_gap_that_float32_cannot_halve_gets_no_bonus():
    least = np.nextafter(np.float32(1), np.float32(2))  # no float32 is between it and 1
    advantage = jnp.array([least, 2.0, 1.0, 1.0])
    change = jnp.array([[-5.0], [5.0], [0.0], [0.0]])
    out, _ = bonus.add_bounded(advantage, change, RIGHT, DECIDED, ALL, 4)
    np.testing.assert_array_equal(out[:, 0], advantage)
    assert not bonus.reversed_groups(out, RIGHT, DECIDED, ALL, 4).any()


def test_reversed_groups_by_hand():
    # Two groups: the second token of a right answer is at the wrong one's; masked, it is not.
    advantage = jnp.array([[0.5, -0.5], [-0.5, -0.5], [0.5, -0.5], [-0.5, -0.5]])
    mask = jnp.array([[1.0, 1], [1, 1], [1, 0], [1, 1]])
    right = jnp.array([True, False, True, False])
    found = bonus.reversed_groups(advantage, right, DECIDED, mask, 2)
    assert found.tolist() == [True, False]
    undecided = jnp.array([True, False, True, True])
    assert not bonus.reversed_groups(advantage, right, undecided, mask, 2).any()


def test_undecided_rows_set_no_bound_and_get_no_bonus():
    advantage = jnp.array([0.5, 0.0, 0.49, -0.5])  # the third is undecided
    decided = jnp.array([True, True, False, True])
    right = jnp.array([True, True, False, False])
    bonus_BR = bonus.centred_over_right(jnp.array([[1.0], [0], [9], [9]]), right, ALL, 4)
    out, met = bonus.add_bounded(advantage, bonus_BR, right, decided, ALL, 4)
    np.testing.assert_allclose(out[:, 0], [0.75, -0.25, 0.49, -0.5])  # gap .5, half .25
    assert met.tolist() == [True]


def test_return_to_go_by_hand():
    # steps .2, .3, none; tokens 0 and 1 of the first step, 2 of the second
    found = bonus.return_to_go(jnp.array([[0.2, 0.3, 0.0]]), jnp.array([[0, 0, 1]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.3]])


def test_the_mean_is_over_tokens():
    # one right answer of three tokens at 1, one of one token at 0: mean .75
    value = jnp.array([[1.0, 1, 1], [0, jnp.nan, jnp.nan]])
    mask = jnp.array([[1.0, 1, 1], [1, 0, 0]])
    found = bonus.centred_over_right(value, jnp.array([True, True]), mask, 2)
    np.testing.assert_allclose(found, [[0.25] * 3, [-0.75, 0, 0]])


_floats = st.floats(-2, 2, width=32)


@hypothesis.given(
    hnp.arrays(np.float32, 6, elements=_floats),
    hnp.arrays(np.float32, (6, 2), elements=st.floats(-5, 5, width=32)),
    hnp.arrays(bool, 6),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_a_wrong_answer_never_passes_a_right_one(advantage, value, right):
    # right answers first, as correctness alone would have it
    advantage = np.where(right, np.abs(advantage) + 0.01, -np.abs(advantage))
    mask = jnp.ones((6, 2))
    centred = bonus.centred_over_right(jnp.array(value), jnp.array(right), mask, 3)
    decided = jnp.array([True] * 6)
    out, _ = bonus.add_bounded(jnp.array(advantage), centred, jnp.array(right), decided, mask, 3)
    for group in (slice(0, 3), slice(3, 6)):
        rights, wrongs = np.asarray(out)[group][right[group]], np.asarray(out)[group][~right[group]]
        if len(rights) and len(wrongs):
            assert rights.min() > wrongs.max()
