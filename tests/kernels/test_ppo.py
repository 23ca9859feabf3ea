"""PPO: surrogate, value loss and KL estimators by hand; gradients; what masks hide."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.ppo import (
    clipped_surrogate,
    kl_estimate,
    log_ratio,
    unbiased_kl,
    value_loss,
)

ONE = jnp.ones((1, 1))


def policy_loss(logp, old_logp, advantage, mask, **clip):
    return clipped_surrogate(jnp.exp(log_ratio(logp, old_logp, mask)), advantage, mask, **clip)


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # ε=.2. A=1, ρ=1.5: min(1.5, 1.2) = 1.2, flat. A=−1: min(−1.5, −1.2) = −1.5, slope −ρ.
        # The loss is minus that; ∂/∂log π of −ρA is −ρA.
        (1.5, 1.0, -1.2, 0.0),
        (1.5, -1.0, 1.5, 1.5),
        # A=1, ρ=.5: min(.5, .8) = .5 with gradient; A=−1: min(−.5, −.8) = −.8, flat.
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
        # inside the clip
        (1.1, 2.0, -2.2, -2.2),
    )
    def test_surrogate(self, ratio, advantage, loss, slope):
        def total(logp):
            return policy_loss(logp, jnp.zeros((1, 1)), advantage * ONE, ONE).sum()

        value, grad = self.variant(jax.value_and_grad(total))(jnp.log(ratio) * ONE)
        np.testing.assert_allclose(value, loss, rtol=1e-6)
        np.testing.assert_allclose(grad, [[slope]], rtol=1e-6)

    def test_clip_high_of_its_own(self):
        # ρ=1.5, A=1: ε_high=.28 → −1.28; ε_low=.4, ρ=.5, A=−1: −min(−.5, −.6) = .6
        loss = policy_loss(jnp.log(1.5) * ONE, 0 * ONE, ONE, ONE, clip_high=0.28)
        np.testing.assert_allclose(loss, [[-1.28]], rtol=1e-6)
        loss = policy_loss(jnp.log(0.5) * ONE, 0 * ONE, -ONE, ONE, clip_low=0.4)
        np.testing.assert_allclose(loss, [[0.6]], rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # V_old=0, ε_v=.2, R=1. V=.5: clipped .2: ½max(.25, .64) = .32, flat
        (0.5, 1.0, 0.32, 0.0),
        # V=.1: not clipped: ½·.81 = .405, slope V−R = −.9
        (0.1, 1.0, 0.405, -0.9),
        # V=.5, R=0: ½max(.25, .04) = .125, slope .5
        (0.5, 0.0, 0.125, 0.5),
    )
    def test_value_loss(self, value, target, loss, slope):
        def total(v):
            return value_loss(v, jnp.zeros((1, 1)), target * ONE, ONE).sum()

        got, grad = self.variant(jax.value_and_grad(total))(value * ONE)
        np.testing.assert_allclose(got, loss, rtol=1e-5)
        np.testing.assert_allclose(grad, [[slope]], atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # l=.5: k1 = .5; k3 = e^−.5 − 1 + .5 = .60653 − .5 = .10653
        ("k1", 0.5),
        ("k3", 0.10653),
    )
    def test_kl(self, kind, expected):
        run = self.variant(lambda a, b: kl_estimate(a, b, ONE, kind=kind))
        np.testing.assert_allclose(run(-1.0 * ONE, -1.5 * ONE), [[expected]], atol=1e-5)


def test_kl_expectations():
    # π=[.7,.3], ref=[.5,.5]: KL = .7·ln1.4 + .3·ln.6 = .235531 − .153248 = .082283
    pi, ref = jnp.array([[0.7, 0.3]]), jnp.array([[0.5, 0.5]])
    mean = {
        kind: float(
            (pi * kl_estimate(jnp.log(pi), jnp.log(ref), jnp.ones((1, 2)), kind=kind)).sum()
        )
        for kind in ("k1", "k3")
    }
    np.testing.assert_allclose(mean["k1"], 0.082283, atol=1e-6)
    np.testing.assert_allclose(mean["k3"], 0.082283, atol=1e-6)


def test_k1_as_a_loss_has_zero_mean_gradient():
    logits, ref = jnp.array([0.3, -0.2, 0.1]), jnp.log(jnp.array([0.2, 0.5, 0.3]))

    def mean_gradient(kind):
        def of(action):
            def loss(x):
                logp = jax.nn.log_softmax(x)[action]
                return kl_estimate(logp * ONE, ref[action] * ONE, ONE, kind=kind).sum()

            return jax.grad(loss)(logits)

        return sum(jax.nn.softmax(logits)[a] * of(a) for a in range(3))

    np.testing.assert_allclose(mean_gradient("k1"), np.zeros(3), atol=1e-6)


def test_unbiased_kl_by_hand():
    # ρ = e^.2 = 1.221403, l = .5: k3 = .106531, ρ·k3 = .130117; slope ρ·(k3 + 1 − e^−l) =
    # 1.221403·(.106531 + .393469) = .610701, where k3's own is .393469.
    def total(x):
        return unbiased_kl(x, -1.2 * ONE, -1.5 * ONE, ONE).sum()

    value, grad = jax.jit(jax.value_and_grad(total))(-1.0 * ONE)
    np.testing.assert_allclose(value, 0.130117, rtol=1e-5)
    np.testing.assert_allclose(grad, [[0.610701]], rtol=1e-5)


@pytest.mark.parametrize("kind, unbiased", [("unbiased", True), ("k3", False)])
def test_the_expected_gradient_of_the_unbiased_kl_is_that_of_the_kl(kind, unbiased):
    # Over all actions of the policy that drew them, which is another one.
    with jax.enable_x64(True):
        logits, drawn = np.array([0.3, -0.2, 0.1]), np.log([0.5, 0.2, 0.3])
        ref = np.log([0.2, 0.5, 0.3])

        def kl(x):
            logp = jax.nn.log_softmax(x)
            return (jnp.exp(logp) * (logp - ref)).sum()

        def expected(x):
            logp, ones = jax.nn.log_softmax(x)[None], jnp.ones((1, 3))
            if kind == "k3":
                each = kl_estimate(logp, ref[None], ones, kind="k3")
            else:
                each = unbiased_kl(logp, drawn[None], ref[None], ones)
            return (np.exp(drawn) * each).sum()

        got, want = jax.grad(expected)(logits), jax.grad(kl)(logits)
    assert np.allclose(got, want, atol=1e-12) == unbiased


def test_k3_keeps_digits_near_zero():
    # l=1e-4: k3 = ½l² − … = 5.0e-9; e^{−l}−1+l in float32 would give 0 or 6e-8
    k3 = kl_estimate(1e-4 * ONE, 0 * ONE, ONE, kind="k3")
    assert abs(float(k3[0, 0]) - 5e-9) < 4e-9


def test_unknown_kind():
    with pytest.raises(ConfigError, match="k1, k3"):
        kl_estimate(ONE, ONE, ONE, kind="k4")


KERNELS = {
    "unbiased": lambda x, y, a, m: unbiased_kl(x, a, y, m),
    "policy": lambda x, y, a, m: policy_loss(x, y, a, m),
    "value": lambda x, y, a, m: value_loss(x, y, a, m),
    **{
        kind: (lambda x, y, a, m, kind=kind: kl_estimate(x, y, m, kind=kind))
        for kind in ("k1", "k3")
    },
}
JITTED = {
    name: jax.jit(jax.value_and_grad(lambda *args, f=f: f(*args).sum(), argnums=0))
    for name, f in KERNELS.items()
}


@pytest.mark.parametrize("name", KERNELS)
@hypothesis.given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=15)
def test_masked_equals_removed_with_finite_gradient(name, bits, seed):
    keep = np.array(bits).reshape(2, 4)
    x, y, a = np.random.default_rng(seed).normal(size=(3, 2, 4)).astype(np.float32)
    dirty = [np.where(keep, v, bad) for v, bad in ((x, np.nan), (y, -np.inf), (a, np.nan))]
    value, grad = JITTED[name](*dirty, keep.astype(np.float32))
    expected = KERNELS[name](x, y, a, np.ones((2, 4), np.float32))
    np.testing.assert_allclose(value, np.asarray(expected)[keep].sum(), atol=1e-5)
    assert np.all(np.isfinite(grad)) and not np.any(np.asarray(grad)[~keep])


def test_old_values_and_advantages_get_no_gradient():
    grad = jax.grad(lambda advantage: policy_loss(0.1 * ONE, 0 * ONE, advantage, ONE).sum())(ONE)
    chex.assert_trees_all_equal(grad, 0 * ONE)
    grads = jax.grad(lambda o, r: value_loss(0.5 * ONE, o, r, ONE).sum(), (0, 1))(0 * ONE, ONE)
    chex.assert_trees_all_equal(grads, (0 * ONE, 0 * ONE))
