"""The shift by one: gathers and their gradients."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from distill_jax.kernels.logprob import gather_packed, gather_response, shifted


def test_response_states_begin_at_the_prompts_last_token():
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 2)), jnp.float32)
    out = gather_response(hidden, jnp.array([1, 4, 7]), 5)
    np.testing.assert_array_equal(out[0], hidden[0, :5])
    np.testing.assert_array_equal(out[1], [*hidden[1, 3:], *np.zeros((1, 2))])
    np.testing.assert_array_equal(out[2], [hidden[2, 6], *np.zeros((4, 2))])


def test_a_response_is_scored_by_the_token_before():
    # A "model" whose logits at position p put everything on token p+1's id.
    tokens = jnp.array([[4, 2, 7, 5, 1]])
    logits = 50.0 * jax.nn.one_hot(jnp.roll(tokens, -1, axis=1), 9)
    at = gather_response(logits, jnp.array([2]), 3)
    logp = jax.nn.log_softmax(at)[0, jnp.arange(3), tokens[0, 2:]]
    np.testing.assert_allclose(logp, np.zeros(3), atol=1e-5)


# Positions of response tokens, at least 1: any set of them, as packed rows may have.
places = st.sets(st.integers(1, 7), max_size=5).map(sorted)


@hypothesis.given(st.lists(places, min_size=3, max_size=3), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=25)
def test_packed_gather_and_gradient_equal_indexing(at, seed):
    hidden, weight = np.random.default_rng(seed).normal(size=(2, 3, 7, 2)).astype(np.float32)
    weight = weight[:, :5]
    at_BR = np.full((3, 5), 8, np.int32)
    expected, grad = np.zeros((3, 5, 2), np.float32), np.zeros_like(hidden)
    for b, row in enumerate(at):
        for t, place in enumerate(row):
            at_BR[b, t] = place
            expected[b, t] = hidden[b, place - 1]
            grad[b, place - 1] = weight[b, t]
    out, got = PACKED(jnp.asarray(hidden), at_BR, weight)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(got, grad)


@jax.jit
def PACKED(hidden, at_BR, weight):  # noqa: N802
    out = gather_packed(hidden, at_BR)
    return out, jax.grad(lambda h: (gather_packed(h, at_BR) * weight).sum())(hidden)


@hypothesis.given(st.lists(st.integers(-6, 6), min_size=3, max_size=3), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=25)
def test_shifted_and_its_gradient_equal_indexing(offsets, seed):
    x, weight = np.random.default_rng(seed).normal(size=(2, 3, 7, 2)).astype(np.float32)
    weight = weight[:, :5]
    expected, grad = np.zeros((3, 5, 2), np.float32), np.zeros_like(x)
    for b, offset in enumerate(offsets):
        for i in range(5):
            if 0 <= offset + i < 7:
                expected[b, i] = x[b, offset + i]
                grad[b, offset + i] = weight[b, i]
    out, got = SHIFTED(jnp.asarray(x), jnp.array(offsets), weight)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(got, grad)


@jax.jit
def SHIFTED(x, offsets, weight):  # noqa: N802
    out = shifted(x, offsets, 5)
    return out, jax.grad(lambda y: (shifted(y, offsets, 5) * weight).sum())(x)
