"""GAE: values by hand, its two limits, a loop, masked positions as if removed."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from hypothesis import strategies as st

from distill_jax.kernels.gae import gae, length_lambda

REWARD = [[0.0, 0.0, 1.0]]
VALUE = [[0.5, 0.6, 0.8]]


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # γ=1, V_end=0: δ = [0+.6−.5, 0+.8−.6, 1+0−.8] = [.1, .2, .2]
        (0.0, [0.1, 0.2, 0.2]),
        # λ=1: A2=.2; A1=.2+.2=.4; A0=.1+.4=.5
        (1.0, [0.5, 0.4, 0.2]),
        # λ=.95: A2=.2; A1=.2+.95·.2=.39; A0=.1+.95·.39=.4705
        (0.95, [0.4705, 0.39, 0.2]),
    )
    def test_advantage(self, lam, expected):
        run = self.variant(lambda r, v: gae(r, v, jnp.ones((1, 3)), gamma=1.0, lam=lam))
        advantage, returns = run(jnp.array(REWARD), jnp.array(VALUE))
        np.testing.assert_allclose(advantage[0], expected, atol=1e-6)
        np.testing.assert_allclose(returns, advantage + jnp.array(VALUE), atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_lambda_by_length(self):
        # α = .05: 100 tokens 1 − 1/5 = .8, 40 tokens .5, 20 and 10 tokens 0, none 0
        length = np.array([100, 40, 20, 10, 0])
        mask = (np.arange(100) < length[:, None]).astype(np.float32)
        mask[0] = np.roll(mask[0], 3)
        run = self.variant(lambda m: length_lambda(m, 0.05))
        np.testing.assert_allclose(run(mask), [0.8, 0.5, 0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(run(np.pad(mask, ((0, 0), (0, 9)))), run(mask))

    def test_bootstrap_and_discount(self):
        # γ=.5, λ=1, V_end=2: A2 = 1 + .5·2 − .8 = 1.2; δ1 = .5·.8 − .6 = −.2, A1 = −.2+.5·1.2 = .4;
        # δ0 = .5·.6 − .5 = −.2, A0 = −.2 + .5·.4 = 0
        advantage, _ = gae(
            jnp.array(REWARD),
            jnp.array(VALUE),
            jnp.ones((1, 3)),
            gamma=0.5,
            lam=1.0,
            bootstrap_B=jnp.array([2.0]),
        )
        np.testing.assert_allclose(advantage[0], [0.0, 0.4, 1.2], atol=1e-6)


def rows(seed, size=(3, 7)):
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, *size)).astype(np.float32)
    return reward, value, rng.normal(size=size[0]).astype(np.float32)


def loop(reward, value, mask, gamma, lam, end):
    out = np.zeros_like(reward)
    for b in range(reward.shape[0]):
        advantage, after = 0.0, end[b]
        for t in reversed(range(reward.shape[1])):
            if mask[b, t]:
                delta = reward[b, t] + gamma * after - value[b, t]
                advantage = delta + gamma * lam * advantage
                out[b, t], after = advantage, value[b, t]
    return out


run = jax.jit(lambda r, v, m, gamma, lam, end: gae(r, v, m, gamma=gamma, lam=lam, bootstrap_B=end))
masks = st.lists(st.booleans(), min_size=21, max_size=21).map(
    lambda bits: np.array(bits, np.float32).reshape(3, 7)
)
unit = st.floats(0.0, 1.0, width=32)


@hypothesis.given(masks, unit, unit, st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=50)
def test_equals_loop_whatever_stands_under_the_mask(mask, gamma, lam, seed):
    reward, value, end = rows(seed)
    expected = loop(reward, value, mask, gamma, lam, end)
    reward, value = np.where(mask, reward, np.nan), np.where(mask, value, np.inf)
    advantage, returns = run(reward, value, mask, gamma, lam, end)
    np.testing.assert_allclose(advantage, expected, atol=2e-5)
    np.testing.assert_allclose(returns, np.where(mask, expected + value, 0), atol=2e-5)


@hypothesis.given(st.lists(st.booleans(), min_size=7, max_size=7), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=25)
def test_masked_equals_removed(bits, seed):
    reward, value, end = rows(seed, (1, 7))
    keep = np.array(bits)
    whole, _ = run(reward, value, keep[None].astype(np.float32), 0.9, 0.8, end)
    if keep.any():
        ones = np.ones((1, keep.sum()), np.float32)
        short, _ = run(reward[:, keep], value[:, keep], ones, 0.9, 0.8, end)
        np.testing.assert_allclose(np.asarray(whole)[:, keep], short, atol=1e-5)
    assert not np.any(np.asarray(whole)[:, ~keep])


def test_lambda_one_is_discounted_return_minus_value():
    reward, value, end = rows(1)
    advantage, returns = run(reward, value, np.ones((3, 7), np.float32), 0.9, 1.0, end)
    discounted = [
        sum(0.9 ** (k - t) * reward[:, k] for k in range(t, 7)) + 0.9 ** (7 - t) * end
        for t in range(7)
    ]
    np.testing.assert_allclose(returns, np.stack(discounted, 1), atol=1e-5)
    np.testing.assert_allclose(advantage, np.stack(discounted, 1) - value, atol=1e-5)


def test_one_token_is_finite_and_no_gradient_flows():
    ones = jnp.ones((1, 1))
    advantage, _ = gae(2 * ones, 0.5 * ones, ones, gamma=1.0, lam=0.95)
    np.testing.assert_allclose(advantage, [[1.5]])
    grad = jax.grad(lambda v: gae(ones, v, ones, gamma=1.0, lam=0.95)[1].sum())(ones)
    np.testing.assert_array_equal(grad, [[0.0]])


def test_a_lambda_of_each_row_equals_rows_alone():
    reward, value, end = rows(4)
    mask, lam = np.ones((3, 7), np.float32), np.array([0.0, 0.5, 1.0], np.float32)
    together, _ = run(reward, value, mask, 0.9, lam, end)
    for b, one in enumerate(lam):
        alone, _ = run(*(x[b : b + 1] for x in (reward, value, mask)), 0.9, one, end[b : b + 1])
        np.testing.assert_allclose(together[b : b + 1], alone, atol=1e-6)
