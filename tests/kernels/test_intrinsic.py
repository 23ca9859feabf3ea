"""Soft values and intrinsic rewards: values by hand, identities, a loop, removal under masks."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import strategies as st

from distill_jax.kernels.intrinsic import intrinsic_reward, next_kept, soft_value

# The check of FORMULAS: α=1, γ=1, two states.
#   s0 logits [1,0,−1], action 0: V0 = ln(e + 1 + e⁻¹) = ln(2.71828+1+.36788) = ln 4.08616 = 1.40761
#   s1 logits [0,2,1], action 2 = EOS: V1 = ln(1 + e² + e) = ln(1+7.38906+2.71828) = 2.40761
#   raw: r0 = 1 − V1 = 1 − 2.40761 = −1.40761; r1 = 1 − 0 = 1 (V = 0 after EOS)
#   canonical: 1 − 1.40761 = −.40761; 1 − 2.40761 = −1.40761
LOGITS = np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]], np.float32)
ACTIONS = np.array([0, 2])


def chosen(logits=LOGITS):
    return jnp.asarray(logits[np.arange(2), ACTIONS])[None]


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_soft_value(self):
        value = self.variant(lambda x: soft_value(x, 1.0))(jnp.asarray(LOGITS))
        np.testing.assert_allclose(value, [1.40761, 2.40761], atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # Adding 5 to all of s1: r0 = 1 − 7.40761, r1 = 6; the sum stays.
        (0.0, False, [-1.40761, 1.0]),
        (5.0, False, [-6.40761, 6.0]),
        (0.0, True, [-0.40761, -1.40761]),
        (5.0, True, [-0.40761, -1.40761]),
    )
    def test_reward(self, shift, canonical, expected):
        logits = LOGITS + np.array([[0.0], [shift]], np.float32)
        value = soft_value(jnp.asarray(logits), 1.0)[None]
        run = self.variant(
            lambda q, v: intrinsic_reward(q, v, jnp.ones((1, 2)), canonical=canonical)
        )
        reward = run(chosen(logits), value)
        np.testing.assert_allclose(reward[0], expected, atol=1e-5)
        if not canonical:
            # Σ r = log π(τ) + V0 = −1.81521 + 1.40761 = −.40761 either way
            np.testing.assert_allclose(reward.sum(), -0.40761, atol=1e-5)

    def test_truncated_row_keeps_its_last_state(self):
        # Not terminal: r1 = 1 − V(s2) with V(s2) = .7
        value = soft_value(jnp.asarray(LOGITS), 1.0)[None]
        reward = intrinsic_reward(
            chosen(), value, jnp.ones((1, 2)), canonical=False, bootstrap_B=jnp.array([0.7])
        )
        np.testing.assert_allclose(reward[0], [-1.40761, 0.3], atol=1e-5)


def test_soft_value_limits():
    logits = jnp.array([[3.0, 1.0, -2.0]])
    np.testing.assert_allclose(soft_value(logits, 1e-3), [3.0], atol=1e-5)  # α→0: the maximum
    # α=2: 2·ln(e^1.5 + e^.5 + e^−1) = 2·ln(4.48169+1.64872+.36788) = 2·1.87154
    np.testing.assert_allclose(soft_value(logits, 2.0), [3.74308], atol=1e-4)
    assert soft_value(logits.astype(jnp.bfloat16), 1.0).dtype == jnp.float32


def rows(seed, size=(3, 6)):
    rng = np.random.default_rng(seed)
    q, v = rng.normal(size=(2, *size)).astype(np.float32)
    return q, v, rng.normal(size=size[0]).astype(np.float32)


def loop(q, v, mask, gamma, bootstrap):
    out = np.zeros_like(q)
    for b in range(q.shape[0]):
        after = bootstrap[b]
        for t in reversed(range(q.shape[1])):
            if mask[b, t]:
                out[b, t] = q[b, t] - gamma * after
                after = v[b, t]
    return out


masks = st.lists(st.booleans(), min_size=18, max_size=18).map(
    lambda bits: np.array(bits, np.float32).reshape(3, 6)
)
raw = jax.jit(
    lambda q, v, m, g, b: intrinsic_reward(q, v, m, gamma=g, bootstrap_B=b, canonical=False)
)


@hypothesis.given(masks, st.floats(0.0, 1.0), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=40)
def test_raw_equals_loop_whatever_stands_under_the_mask(mask, gamma, seed):
    q, v, bootstrap = rows(seed)
    expected = loop(q, v, mask, gamma, bootstrap)
    q, v = np.where(mask > 0, q, np.nan), np.where(mask > 0, v, np.nan)
    np.testing.assert_allclose(raw(q, v, mask, gamma, bootstrap), expected, atol=1e-5)


@hypothesis.given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=25)
def test_masked_equals_removed(bits, seed):
    q, v, bootstrap = rows(seed, (1, 6))
    keep = np.array(bits)
    whole = raw(q, v, keep[None].astype(np.float32), 0.9, bootstrap)
    if keep.any():
        short = raw(q[:, keep], v[:, keep], np.ones((1, keep.sum()), np.float32), 0.9, bootstrap)
        np.testing.assert_allclose(whole[:, keep], short, atol=1e-6)
    assert not np.any(np.asarray(whole)[:, ~keep])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_telescopes(gamma):
    # Σ γ^t r_t = α·Σ γ^t log π + V(s_0) − γ^T·V(s_T)
    rng = np.random.default_rng(0)
    alpha, logits = 0.5, jnp.asarray(rng.normal(size=(1, 5, 7)), jnp.float32)
    action = rng.integers(7, size=(1, 5))
    q = jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]
    v, end = soft_value(logits, alpha), jnp.array([1.3])
    mask = jnp.ones((1, 5))
    reward = intrinsic_reward(q, v, mask, gamma=gamma, bootstrap_B=end, canonical=False)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits / alpha), action[..., None], -1)[..., 0]
    discount = gamma ** np.arange(5)
    right = alpha * (discount * logp).sum() + v[0, 0] - gamma**5 * end[0]
    np.testing.assert_allclose((discount * reward).sum(), right, rtol=1e-5)
    canonical = intrinsic_reward(q, v, mask, canonical=True)
    np.testing.assert_allclose(canonical, alpha * logp, atol=1e-5)


def test_next_kept_with_holes():
    x = jnp.array([[1.0, 2.0, 3.0, 4.0]])
    mask = jnp.array([[1, 0, 1, 0]])
    np.testing.assert_allclose(next_kept(x, mask, jnp.array([9.0])), [[3, 3, 9, 9]])


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        intrinsic_reward(jnp.zeros((2, 3)), jnp.zeros((2, 4)), jnp.zeros((2, 3)))
    with pytest.raises(AssertionError):
        soft_value(jnp.zeros((2, 3), jnp.int32), 1.0)
