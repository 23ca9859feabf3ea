"""Divergences by hand, their gradients, branches of β, the tail bucket, limits."""

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import strategies as st
from scipy import special

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import (
    branch,
    cosine_distance,
    forward_kl,
    jsd_beta,
    reverse_kl,
    top_k_tail_divergence,
)

P, Q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(
        # KL(P‖Q) = .5·ln(.5/.9) + .5·ln(.5/.1) = −.29389 + .80472 = .51083
        ("forward_kl", forward_kl, 0.51083),
        # KL(Q‖P) = .9·ln 1.8 + .1·ln .2 = .52901 − .16094 = .36806
        ("reverse_kl", reverse_kl, 0.36806),
        # M=[.7,.3]: KL(P‖M) = .5·ln(.5/.7)+.5·ln(.5/.3) = −.16824+.25541 = .08718;
        # KL(Q‖M) = .9·ln(.9/.7)+.1·ln(.1/.3) = .22618−.10986 = .11632; half of each: .10175
        ("jsd_beta", jsd_beta, 0.10175),
    )
    def test_value(self, kernel, expected):
        # A constant on the logits changes nothing.
        value = self.variant(kernel)(P + 3.0, Q - 2.0)
        np.testing.assert_allclose(value, expected, atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_temperature_multiplies_by_its_square(self):
        # logits doubled at T=2 are the same distributions: value · 4
        value = self.variant(lambda p, q: forward_kl(p, q, temperature=2.0))(2 * P, 2 * Q)
        np.testing.assert_allclose(value, 4 * 0.51083, atol=4e-5)


def test_branches_of_beta():
    np.testing.assert_allclose(jsd_beta(P, Q, beta=0.0), forward_kl(P, Q))
    np.testing.assert_allclose(jsd_beta(P, Q, beta=1.0), reverse_kl(P, Q))
    # Near the ends the formula goes to 0 in proportion: JSD_β/β → KL(P‖Q), JSD_β/(1−β) → KL(Q‖P)
    np.testing.assert_allclose(jsd_beta(P, Q, beta=1e-3) / 1e-3, 0.51083, rtol=1e-2)
    np.testing.assert_allclose(jsd_beta(P, Q, beta=0.999) / 1e-3, 0.36806, rtol=1e-2)
    assert branch("jsd", 0.5) == "jsd"
    for kind, beta in (("kl", 0.5), ("jsd", 1.5)):
        with pytest.raises(ConfigError, match="wanted"):
            branch(kind, beta)


logits = hnp.arrays(np.float32, (2, 5), elements=st.floats(-4, 4, width=32))


@hypothesis.given(logits, logits)
@hypothesis.settings(deadline=None, max_examples=20)
def test_gradients_in_student_logits(teacher, student):
    p, q = jax.nn.softmax(teacher), jax.nn.softmax(student)
    grad = jax.grad(lambda s: forward_kl(jnp.asarray(teacher), s).sum())(jnp.asarray(student))
    np.testing.assert_allclose(grad, q - p, atol=1e-5)
    log_q_p = jnp.log(q) - jnp.log(p)
    kl = (q * log_q_p).sum(-1, keepdims=True)
    grad = jax.grad(lambda s: reverse_kl(jnp.asarray(teacher), s).sum())(jnp.asarray(student))
    np.testing.assert_allclose(grad, q * (log_q_p - kl), atol=1e-5)


@hypothesis.given(logits, logits, st.floats(0.0, 1.0), st.sampled_from([0.5, 1.0, 3.0]))
@hypothesis.settings(deadline=None, max_examples=30)
def test_bounds(teacher, student, beta, temperature):
    teacher, student = jnp.asarray(teacher), jnp.asarray(student)
    both = dict(beta=beta, temperature=temperature)
    assert np.all(np.asarray(jsd_beta(teacher, student, **both)) >= -1e-5)
    np.testing.assert_allclose(jsd_beta(teacher, teacher, **both), 0, atol=1e-5)
    if 0 < beta < 1:
        limit = -(beta * np.log(beta) + (1 - beta) * np.log1p(-beta)) * temperature**2
        assert np.all(np.asarray(jsd_beta(teacher, student, **both)) <= limit + 1e-4)
    # JS is symmetric.
    np.testing.assert_allclose(jsd_beta(teacher, student), jsd_beta(student, teacher), atol=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
@hypothesis.given(logits, logits, st.integers(1, 5))
@hypothesis.settings(deadline=None, max_examples=15)
def test_tail_is_a_lower_bound_and_whole_at_full_k(kind, teacher, student, k):
    teacher, student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    full = {"forward": forward_kl, "reverse": reverse_kl, "jsd": jsd_beta}[kind](teacher, student)
    top, ids = jax.lax.top_k(teacher, k)
    listed = jnp.take_along_axis(student, ids, axis=-1)
    tails = (_log_tail(side, ids) for side in (teacher, student))
    got = top_k_tail_divergence(top, next(tails), listed, next(tails), kind=kind)
    assert np.all(np.asarray(got) <= np.asarray(full) + 1e-5)
    if k >= 4:  # one token in the tail, or none: nothing is lost
        np.testing.assert_allclose(got, full, atol=1e-5)


def _log_tail(logp_XV, ids_XK):
    """Log of the mass that is not listed; very low and finite where all is."""
    rest = np.array(logp_XV, np.float64)
    np.put_along_axis(rest, np.asarray(ids_XK), -1e30, axis=-1)
    return jnp.asarray(special.logsumexp(rest, axis=-1), jnp.float32)


def test_tail_by_hand():
    # P=[.5,.3,.2], Q=[.2,.3,.5], k=1: .5·ln(.5/.2) + .5·ln(.5/.8) = .45815 − .23500 = .22314
    # Renormalising silently over k=1 would say 0.
    p, q = (jnp.log(jnp.array(x)) for x in ([0.5, 0.5], [0.2, 0.8]))
    got = top_k_tail_divergence(p[:1], p[1], q[:1], q[1])
    np.testing.assert_allclose(got, 0.22314, atol=1e-5)
    # All mass is listed: no tail on either side.
    sure, none = jnp.zeros(1), jnp.array(-1e30)
    for kind in ("forward", "reverse", "jsd"):
        run = jax.value_and_grad(
            lambda q, tail, kind=kind: top_k_tail_divergence(sure, none, q, tail, kind=kind), (0, 1)
        )
        value, grads = run(sure, none)
        assert value == 0 and all(np.all(np.isfinite(g)) for g in grads)


def test_impossible_tokens_are_finite():
    # A teacher that excludes a token: 0·log 0 = 0, and the gradient is finite.
    teacher = jnp.array([0.0, 1.0, -jnp.inf])
    value, grad = jax.value_and_grad(lambda s: forward_kl(teacher, s))(jnp.zeros(3))
    assert np.isfinite(value) and np.all(np.isfinite(grad))
    value, grad = jax.value_and_grad(lambda s: jsd_beta(teacher, s))(jnp.zeros(3))
    assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_cosine():
    a, b = (
        jnp.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]),
        jnp.array([[6.0, 8.0], [0, 2.0], [1, 1]]),
    )
    np.testing.assert_allclose(cosine_distance(a, b), [0.0, 1.0, 1.0], atol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: cosine_distance(x, b).sum())(a)))
