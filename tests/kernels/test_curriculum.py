"""TD(0), Boltzmann shares, competence, posteriors: values by hand, slow loops, absent arms."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.kernels.curriculum import (
    beta_mean,
    boltzmann,
    competence,
    discounted_counts,
    td_update,
)
from distill_jax.kernels.grpo import group_advantage


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_one_step(self):
        # α = .5: .5·.8 + .5·0 = .4; the other arm was not sampled.
        update = self.variant(lambda q, r, s: td_update(q, r, s, learning_rate=0.5))
        q = update(jnp.zeros(2), jnp.array([0.8, 9.0]), jnp.array([True, False]))
        np.testing.assert_allclose(q, [0.4, 0.0])
        # e^.4 = 1.49182: p₀ = 1.49182/2.49182 = .59869
        share = self.variant(lambda q, a: boltzmann(q, a, temperature=1.0))
        np.testing.assert_allclose(share(q, jnp.ones(2, bool)), [0.59869, 0.40131], atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_temperature_and_floor(self):
        # τ = .2: e^2 = 7.38906: p₀ = .88080; with ε = .1: .9·.88080 + .05 = .84272
        share = self.variant(lambda q, a: boltzmann(q, a, temperature=0.2, floor=0.1))
        p = share(jnp.array([0.4, 0.0]), jnp.ones(2, bool))
        np.testing.assert_allclose(p, [0.84272, 0.15728], atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_absent_arms(self):
        share = self.variant(lambda q, a: boltzmann(q, a, temperature=1.0, floor=0.5))
        p = share(jnp.array([0.4, jnp.nan, 0.0]), jnp.array([True, False, True]))
        # .5·.59869 + .25; the floor is shared by the two that are there
        np.testing.assert_allclose(p, [0.54934, 0.0, 0.45066], atol=1e-5)
        np.testing.assert_array_equal(share(jnp.ones(3), jnp.zeros(3, bool)), [0, 0, 0])

    @chex.variants(with_jit=True, without_jit=True)
    def test_competence(self):
        # c₀ = .1, T = 100: √(50·.99/100 + .01) = √.505 = .71063
        at = self.variant(lambda t: competence(t, steps=100, start=0.1))
        got = [float(at(t)) for t in (0, 50, 100, 1000)]
        np.testing.assert_allclose(got, [0.1, 0.71063, 1.0, 1.0], atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_posterior_that_forgets(self):
        # μ = .5, 8 samples. Right: 8, 6, not drawn, 0: 8; .5·8+6 = 10; 10; 5. Wrong: 0, 2, 2, 9.
        # Means (1+r)/(2+r+w): 9/10, 11/14, 11/14, 6/16; the second problem is never drawn.
        count = self.variant(lambda n, new, drawn: discounted_counts(n, new, drawn, memory=0.5))
        mean = self.variant(beta_mean)
        right, wrong, means = jnp.zeros(2), jnp.zeros(2), []
        for new, drawn in ((8, True), (6, True), (0, False), (0, True)):
            given = jnp.array([drawn, False])
            right = count(right, jnp.array([new, 0]), given)
            wrong = count(wrong, jnp.array([8 - new if drawn else 0, 0]), given)
            means.append(mean(right, wrong).tolist())
        np.testing.assert_allclose(right, [5, 0])
        np.testing.assert_allclose(wrong, [9, 0])
        np.testing.assert_allclose(
            means, [[9 / 10, 0.5], [11 / 14, 0.5], [11 / 14, 0.5], [6 / 16, 0.5]]
        )


def test_large_values_do_not_overflow():
    p = boltzmann(jnp.array([1e4, 1e4 - 1, -1e4]), jnp.ones(3, bool), temperature=0.1)
    np.testing.assert_allclose(p, [1.0, np.exp(-10), 0.0], rtol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_changes_nothing(bad):
    q = td_update(jnp.array([0.3, 0.2]), jnp.array([bad, 1.0]), jnp.ones(2, bool), learning_rate=1)
    np.testing.assert_allclose(q, [0.3, 1.0])


_shares = jax.jit(lambda q, a, t, f: boltzmann(q, a, temperature=t, floor=f))


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=4, max_size=4),
    st.floats(0.05, 5),
    st.floats(0, 1),
)
def test_shares_against_a_loop(arms, temperature, floor):
    q, available = [x for x, _ in arms], [there for _, there in arms]
    count = sum(available)
    odds = [np.exp(x / temperature) if there else 0.0 for x, there in arms]
    wanted = [
        (1 - floor) * odd / sum(odds) + floor / count if there else 0.0
        for odd, there in zip(odds, available, strict=True)
    ]
    p = _shares(np.array(q, np.float32), np.array(available), temperature, floor)
    np.testing.assert_allclose(p, wanted, rtol=1e-4, atol=1e-7)
    if count:
        np.testing.assert_allclose(np.sum(p), 1.0, rtol=1e-5)
        assert np.all(np.asarray(p)[available] >= floor / count - 1e-6)


@pytest.mark.parametrize("right", range(9))
def test_mean_advantage_of_a_binary_reward(right):
    # G samples, share p right: |1−p|/σ for pG, p/σ for (1−p)G, σ = √(p(1−p)) → 2√(p(1−p))
    reward = jnp.array([[1.0] * right + [0.0] * (8 - right)])
    p = right / 8
    got = jnp.mean(jnp.abs(group_advantage(reward, ddof=0)))
    np.testing.assert_allclose(got, 2 * np.sqrt(p * (1 - p)), atol=1e-4)


_STEPS = st.lists(st.one_of(st.none(), st.integers(0, 8)), max_size=12)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(_STEPS, st.floats(0, 1))
def test_counts_are_a_discounted_sum(steps, memory):
    """Each verdict counts μ^(later draws); the update with the prior inside is the paper's."""
    count, alpha = np.zeros(1, np.float32), 1.0
    for new in steps:
        count = discounted_counts(
            count, np.array([new or 0]), np.array([new is not None]), memory=memory
        )
        alpha = alpha if new is None else memory * alpha + (1 - memory) * 1.0 + new
    drawn = [new for new in steps if new is not None]
    wanted = sum(new * memory ** (len(drawn) - 1 - at) for at, new in enumerate(drawn))
    np.testing.assert_allclose(count, [wanted], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(1 + count, [alpha], rtol=1e-4)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_posterior_mean_moves_with_the_verdicts(right, wrong):
    def mean(r, w):
        return float(beta_mean(np.float32([r]), np.float32([w]))[0])

    assert 0 < mean(right, wrong) < 1
    np.testing.assert_allclose(mean(right, wrong), 1 - mean(wrong, right), atol=1e-6)
    assert mean(right + 8, wrong) >= mean(right, wrong) >= mean(right, wrong + 8)
    # Shrunk towards ½.
    share = right / max(right + wrong, 1e-9)
    assert abs(mean(right, wrong) - 0.5) <= abs(share - 0.5) + 1e-6 or right + wrong < 1e-9
