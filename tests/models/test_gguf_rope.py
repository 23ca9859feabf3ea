"""Llama 3's scaling from its factors alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.models.gguf_rope import factors_of, scaling_of
from distill_jax.models.rope_scaling import Llama3Scaling


@settings(max_examples=300, deadline=None)
@given(
    factor=st.floats(1.0, 64.0),
    context=st.integers(1, 200_000),
    low=st.floats(0.1, 8.0),
    ratio=st.floats(1.01, 20.0),
    size=st.sampled_from([4, 8, 16, 64, 128]),
    theta=st.sampled_from([100.0, 10_000.0, 500_000.0]),
)
def test_any_scaling_is_found_up_to_what_its_factors_do_not_tell(
    factor, context, low, ratio, size, theta
):
    factors = factors_of(Llama3Scaling(factor, context, low, low * ratio), theta, size)
    found = scaling_of(factors, theta)
    assert found is not None
    np.testing.assert_allclose(factors_of(found, theta, size), factors, rtol=1e-4)


@pytest.mark.parametrize("context", [2048, 4096, 8000, 8192, 8200, 32_768])
def test_the_context_itself_is_found(context):
    scaling = Llama3Scaling(32.0, context)  # of heads and rope of Llama 3.2
    assert scaling_of(factors_of(scaling, 500_000.0, 64), 500_000.0) == scaling


def test_factors_of_coarse_arithmetic_are_those_of_the_released_models():
    factors = factors_of(Llama3Scaling(8.0, 8192), 500_000.0, 128).astype(np.float16)
    assert scaling_of(factors.astype(np.float32), 500_000.0) == Llama3Scaling(8.0, 8192)


@pytest.mark.parametrize(
    "factors", [np.linspace(1, 3, 8), [1, 1, 4, 2], [0.5] * 4, [1, np.nan, 8, 8], [1, np.inf]]
)
def test_factors_of_no_such_scaling(factors):
    assert scaling_of(np.asarray(factors, np.float32), 10_000.0) is None
