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
    cosine_similarity,
    divergence,
    divergence_and_slope,
    top_k_tail_divergence,
)

KINDS = ("forward", "reverse", "jsd")
P, Q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # KL(P‖Q) = .5·ln(.5/.9) + .5·ln(.5/.1) = −.29389 + .80472 = .51083
        ("forward", 0.51083),
        # KL(Q‖P) = .9·ln 1.8 + .1·ln .2 = .52901 − .16094 = .36806
        ("reverse", 0.36806),
        # M=[.7,.3]: KL(P‖M) = .5·ln(.5/.7)+.5·ln(.5/.3) = −.16824+.25541 = .08718;
        # KL(Q‖M) = .9·ln(.9/.7)+.1·ln(.1/.3) = .22618−.10986 = .11632; half of each: .10175
        ("jsd", 0.10175),
    )
    def test_value(self, kind, expected):
        # A constant on the logits changes nothing.
        value = self.variant(lambda p, q: divergence(p, q, kind=kind))(P + 3.0, Q - 2.0)
        np.testing.assert_allclose(value, expected, atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_temperature_multiplies_by_its_square(self):
        # logits doubled at T=2 are the same distributions: value · 4
        value = self.variant(lambda p, q: divergence(p, q, temperature=2.0))(2 * P, 2 * Q)
        np.testing.assert_allclose(value, 4 * 0.51083, atol=4e-5)


def test_branches_of_beta():
    def jsd(beta):
        return divergence(P, Q, kind="jsd", beta=beta)

    for beta, kind in ((0.0, "forward"), (1.0, "reverse")):
        np.testing.assert_allclose(jsd(beta), divergence(P, Q, kind=kind))
        slopes = [divergence_and_slope(P, Q, kind=name, beta=beta)[1] for name in ("jsd", kind)]
        np.testing.assert_array_equal(*slopes)
    # Near the ends the formula goes to 0 in proportion: JSD_β/β → KL(P‖Q), JSD_β/(1−β) → KL(Q‖P)
    np.testing.assert_allclose(jsd(1e-3) / 1e-3, 0.51083, rtol=1e-2)
    np.testing.assert_allclose(jsd(0.999) / 1e-3, 0.36806, rtol=1e-2)
    assert branch("jsd", 0.5) == "jsd"
    for kind, beta in (("kl", 0.5), ("jsd", 1.5)):
        with pytest.raises(ConfigError, match="wanted"):
            branch(kind, beta)


logits = hnp.arrays(np.float32, (2, 5), elements=st.floats(-4, 4, width=32))


def oracle(teacher, student, kind, beta, temperature):
    """T²·divergence of one token, term by term in float64."""
    p, q = (special.softmax(np.float64(x) / temperature) for x in (teacher, student))
    total = 0.0
    for p_v, q_v in zip(p, q, strict=True):
        m_v = beta * p_v + (1 - beta) * q_v
        total += {
            "forward": p_v * np.log(p_v / q_v),
            "reverse": q_v * np.log(q_v / p_v),
            "jsd": beta * p_v * np.log(p_v / m_v) + (1 - beta) * q_v * np.log(q_v / m_v),
        }[kind]
    return temperature**2 * total


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(logits, logits, st.floats(0.05, 0.95), st.sampled_from([0.5, 1.0, 3.0]))
@hypothesis.settings(deadline=None, max_examples=20)
def test_value_and_slope(kind, teacher, student, beta, temperature):
    """The slope is the gradient of the value in the student's logits."""
    how = {"kind": kind, "beta": beta, "temperature": temperature}
    teacher, student = jnp.asarray(teacher), jnp.asarray(student)
    value, slope = divergence_and_slope(teacher, student, **how)
    np.testing.assert_allclose(value, divergence(teacher, student, **how), atol=1e-5, rtol=1e-6)
    want = [oracle(*row, kind, beta, temperature) for row in zip(teacher, student, strict=True)]
    np.testing.assert_allclose(value, want, atol=2e-5, rtol=1e-5)
    grad = jax.grad(lambda s: divergence(teacher, s, **how).sum())(student)
    np.testing.assert_allclose(slope, grad, atol=1e-5, rtol=1e-5)
    # A constant on the logits changes nothing, so the slope sums to 0.
    np.testing.assert_allclose(slope.sum(-1), 0, atol=2e-5)
    if kind == "jsd":
        return
    p, q = (jax.nn.softmax(x / temperature) for x in (teacher, student))
    log_q_p = jnp.log(q) - jnp.log(p)
    kl = (q * log_q_p).sum(-1, keepdims=True)
    by_hand = q - p if kind == "forward" else q * (log_q_p - kl)
    np.testing.assert_allclose(slope, temperature * by_hand, atol=2e-5)


@hypothesis.given(logits, logits, st.floats(0.0, 1.0), st.sampled_from([0.5, 1.0, 3.0]))
@hypothesis.settings(deadline=None, max_examples=30)
def test_bounds(teacher, student, beta, temperature):
    teacher, student = jnp.asarray(teacher), jnp.asarray(student)
    both = dict(kind="jsd", beta=beta, temperature=temperature)
    assert np.all(np.asarray(divergence(teacher, student, **both)) >= -1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher, **both), 0, atol=1e-5)
    if 0 < beta < 1:
        limit = -(beta * np.log(beta) + (1 - beta) * np.log1p(-beta)) * temperature**2
        assert np.all(np.asarray(divergence(teacher, student, **both)) <= limit + 1e-4)
    # JS is symmetric.
    there, back = (divergence(*x, kind="jsd") for x in ((teacher, student), (student, teacher)))
    np.testing.assert_allclose(there, back, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(logits, logits, st.integers(1, 5))
@hypothesis.settings(deadline=None, max_examples=15)
def test_tail_is_a_lower_bound_and_whole_at_full_k(kind, teacher, student, k):
    teacher, student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    full = divergence(teacher, student, kind=kind)
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
    p, q = (np.log(np.array(x, np.float32)) for x in ([0.5, 0.5], [0.2, 0.8]))
    got = top_k_tail_divergence(p[:1], p[1], q[:1], q[1])
    np.testing.assert_allclose(got, 0.22314, atol=1e-5)
    # All mass is listed: no tail on either side.
    sure, none = np.zeros(1, np.float32), np.float32(-1e30)

    @jax.jit
    def run(*student):
        teacher = sure, none
        each = [lambda *x, k=kind: top_k_tail_divergence(*teacher, *x, kind=k) for kind in KINDS]
        return [jax.value_and_grad(of, (0, 1))(*student) for of in each]

    for value, grads in run(sure, none):
        assert value == 0 and all(np.all(np.isfinite(g)) for g in grads)


def test_impossible_tokens_are_finite():
    # A teacher that excludes a token: 0·log 0 = 0, and the gradient is finite.
    teacher = np.array([0.0, 1.0, -np.inf], np.float32)

    @jax.jit
    def run(student, teacher):
        found = []
        for kind in ("forward", "jsd"):
            value = lambda s, kind=kind: divergence(teacher, s, kind=kind)  # noqa: E731
            found.append(jax.value_and_grad(value)(student))
            found.append(divergence_and_slope(teacher, student, kind=kind))
        return found

    for value, grad in run(np.zeros(3, np.float32), teacher):
        assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_cosine():
    # The last: [1, 0]·[3, 4]/5 = .6
    a = np.array([[3, 4], [1, 0], [0, 0], [1, 0]], np.float32)
    b = np.array([[6, 8], [0, 2], [1, 1], [3, 4]], np.float32)
    run = jax.jit(cosine_similarity)
    np.testing.assert_allclose(run(a, b), [1.0, 0.0, 0.0, 0.6], atol=1e-6)
    np.testing.assert_allclose(run(a[3], b[3]), 0.6, rtol=1e-6)
    # Rounding never gives more than 1.
    same = special.softmax(np.random.default_rng(0).standard_normal((500, 7), np.float32), axis=1)
    assert np.all(np.asarray(run(same, same)) <= 1.0)
