"""Step losses, aggregation and credit by hand; padding changes nothing."""

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.kernels import process_reward as kernel

# Rows of two and of one labelled step.
LOGIT = jnp.array([[[0.0, 2.0], [1.0, 0.0]], [[0.5, -0.5], [9.0, 9.0]]])
LABEL = jnp.array([[1.0, 1.0], [0.0, jnp.nan]])
MASK = jnp.array([[1.0, 1.0], [1.0, 0.0]])


def test_cross_entropy_by_hand():
    # ln(1+e⁻²), ln(1+e), ln(1+e⁻¹)
    loss_BS = kernel.step_cross_entropy(LOGIT, LABEL, MASK)
    np.testing.assert_allclose(loss_BS, [[0.126928, 1.313262], [0.313262, 0.0]], rtol=1e-5)
    # over all steps .584484; the mean of the rows' means would be .516678
    np.testing.assert_allclose(loss_BS.sum() / MASK.sum(), 0.584484, rtol=1e-5)


def test_soft_label_by_hand():
    logit, label, one = jnp.array([[[0.0, 2.0]]]), jnp.array([[0.375]]), jnp.ones((1, 1))
    loss = kernel.step_cross_entropy(logit, label, one)
    np.testing.assert_allclose(loss, [[1.376928]], rtol=1e-6)
    np.testing.assert_allclose(kernel.label_entropy(label, one), [[0.661563]], rtol=1e-5)
    grad = jax.grad(lambda z: kernel.step_cross_entropy(z, label, one).sum())(logit)
    np.testing.assert_allclose(grad[0, 0], [-0.505797, 0.505797], rtol=1e-5)  # p − y


def test_entropy_of_hard_labels_is_0():
    label = jnp.array([[0.0, 1.0, jnp.nan]])
    np.testing.assert_array_equal(kernel.label_entropy(label, jnp.array([[1.0, 1, 0]])), [[0] * 3])


def test_masked_labels_have_no_gradient():
    grad = jax.grad(lambda z: kernel.step_cross_entropy(z, LABEL, MASK).sum())(LOGIT)
    assert np.isfinite(grad).all() and not np.any(grad[1, 1]) and np.all(grad[1, 0])


A = [0.95, 0.9, 0.85, 0.6, 0.98]


@pytest.mark.parametrize(
    ("how", "of_a", "of_b"),
    [
        ("product", 0.427329, 0.387420),  # B = .9 nine times: less, for its length alone
        ("min", 0.6, 0.9),
        ("last", 0.98, 0.9),
        ("mean", 0.856, 0.9),
        ("geometric", 0.843631, 0.9),
    ],
)
def test_aggregate_by_hand(how, of_a, of_b):
    score_BS = jnp.array([A + [0.01] * 4, [0.9] * 9, [0.5] * 9])
    mask_BS = jnp.array([[1.0] * 5 + [0.0] * 4, [1.0] * 9, [0.0] * 9])
    found = kernel.aggregate(score_BS, mask_BS, how)
    np.testing.assert_allclose(found, [of_a, of_b, jnp.nan], rtol=2e-5)


def test_a_hole_is_no_step():
    found = kernel.aggregate(jnp.array([[0.5, 0.1, 0.7, 0.2]]), jnp.array([[1, 0, 1, 0.0]]), "last")
    np.testing.assert_allclose(found, [0.7])
    with pytest.raises(ConfigError, match="aggregation='sum'"):
        kernel.aggregate(jnp.ones((1, 1)), jnp.ones((1, 1)), "sum")


@pytest.mark.parametrize("how", kernel.AGGREGATIONS)
@hypothesis.given(hnp.arrays(np.float32, 4, elements=st.floats(0, 1, width=32)))
@hypothesis.settings(max_examples=20, deadline=None)
def test_padding_changes_nothing(how, score_S):
    short = kernel.aggregate(jnp.array([score_S]), jnp.ones((1, 4)), how)
    padded = np.concatenate([score_S, [0.25, np.nan]]).astype(np.float32)
    mask = jnp.array([[1.0] * 4 + [0.0] * 2])
    np.testing.assert_array_equal(kernel.aggregate(jnp.array([padded]), mask, how), short)


def test_a_product_of_many_does_not_vanish():
    # .5 over 100 steps: 2⁻¹⁰⁰, a float32 still
    found = kernel.aggregate(jnp.full((1, 100), 0.5), jnp.ones((1, 100)), "product")
    np.testing.assert_allclose(found, [2.0**-100], rtol=1e-4)


def test_min_form_by_hand():
    reward, mask = jnp.array([[0.9, 0.2, 0.8, -1.0]]), jnp.array([[1.0, 1, 1, 0]])
    shaped = kernel.min_form(reward, mask, temperature=0.1)
    np.testing.assert_allclose(shaped[0], [0.000818, 0.199324, 0.001976, 0.0], atol=1e-6)
    np.testing.assert_allclose(shaped.sum(), 0.202118, rtol=1e-4)  # near the least, .2
    np.testing.assert_array_equal(kernel.min_form(reward, mask * 0, temperature=0.1), [[0.0] * 4])


def test_gather_takes_the_ends():
    hidden = jnp.arange(2 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 3)
    found = kernel.gather_steps(hidden, jnp.array([[1, 3], [0, 0]]))
    np.testing.assert_array_equal(found, [[hidden[0, 1], hidden[0, 3]], [hidden[1, 0]] * 2])


def test_right_probability_is_float32():
    found = kernel.right_probability(jnp.array([[[0.0, 2.0]]], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [[0.880797]], rtol=1e-5)
