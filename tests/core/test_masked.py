"""Masked statistics: values by hand, masked equals removed, empty gives 0, gradients finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core import masked

X = jnp.array([[1.0, 2.0, 100.0], [3.0, jnp.nan, jnp.inf]])
MASK = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def test_values_by_hand() -> None:
    # Kept: 1, 2, 3. Sum 6, mean 2, population variance (1 + 0 + 1)/3 = 2/3.
    assert masked.masked_sum(X, MASK) == 6.0
    assert masked.masked_mean(X, MASK) == 2.0
    np.testing.assert_allclose(masked.masked_std(X, MASK), (2 / 3) ** 0.5, rtol=1e-6)
    # Rows: (1 + 2)/2 = 1.5 and 3/1 = 3.
    np.testing.assert_allclose(masked.masked_mean(X, MASK, axis=1), [1.5, 3.0])
    np.testing.assert_allclose(masked.masked_sum(X, MASK, axis=1), [3.0, 3.0])


def test_whiten_by_hand() -> None:
    # (1 − 2, 2 − 2, 3 − 2)/√(2/3) = (−1.2247, 0, 1.2247).
    out = masked.whiten(X, MASK)
    np.testing.assert_allclose(out, [[-1.2247449, 0, 0], [1.2247449, 0, 0]], atol=1e-6)


def test_empty_mask_is_zero_and_one_position_is_not_nan() -> None:
    nothing, one = jnp.zeros_like(MASK), jnp.zeros_like(MASK).at[0, 1].set(1.0)
    for function in (masked.masked_sum, masked.masked_mean, masked.masked_std):
        assert function(X, nothing) == 0.0
    assert not masked.whiten(X, nothing).any()
    assert masked.masked_std(X, one) == 0.0
    assert masked.whiten(X, one)[0, 1] == 0.0


@pytest.mark.parametrize(("value", "count"), [(0.3, 100), (-0.7, 37), (0.1, 1000)])
def test_whitening_values_all_alike_gives_0_not_rounding_noise(value: float, count: int) -> None:
    x = jnp.full((1, count), value, jnp.float32)
    assert masked.masked_mean(x, jnp.ones_like(x)) != x[0, 0]  # else nothing is tested
    assert not masked.whiten(x, jnp.ones_like(x)).any()


@pytest.mark.parametrize(
    "function", [masked.masked_mean, masked.masked_std, lambda x, m: masked.whiten(x, m).sum()]
)
def test_gradients_are_finite_and_zero_under_the_mask(function) -> None:
    x = jnp.array([[1.0, 2.0, 100.0], [3.5, 7.0, 8.0]])
    gradient = jax.grad(lambda x: function(x, MASK))(x)
    assert jnp.isfinite(gradient).all()
    assert not gradient[MASK == 0].any()


def test_gradient_of_std_of_one_position_is_finite() -> None:
    one = jnp.zeros_like(MASK).at[0, 1].set(1.0)
    x = jnp.ones_like(MASK)
    for function in (masked.masked_std, lambda x, m: masked.whiten(x, m).sum()):
        assert jnp.isfinite(jax.grad(lambda x, f=function: f(x, one))(x)).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(min_value=-100, max_value=100, width=32), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_masked_equals_removed(rows: list[tuple[float, bool]]) -> None:
    x = np.array([value for value, _ in rows], np.float32)
    keep = np.array([kept for _, kept in rows])
    if not keep.any():
        return
    mask = jnp.asarray(keep, jnp.float32)
    np.testing.assert_allclose(masked.masked_mean(x, mask), x[keep].mean(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(masked.masked_std(x, mask), x[keep].std(), rtol=1e-4, atol=1e-2)
