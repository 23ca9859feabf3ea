"""Decoupled advantages by hand, against a loop, and where terms do not apply."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.kernels.gdpo import decoupled_advantage
from distill_jax.kernels.grpo import group_advantage


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_two_terms(self):
        # Correctness [1,0,0,0] → [1.5,−.5,−.5,−.5] (ddof 1). Format [0,0,0,.01] → the same three
        # places over: [−.5,−.5,−.5,1.5]. S = A_c + ½·A_f = [1.25,−.75,−.75,.25], mean 0,
        # Σ² = 1.5625 + 2·.5625 + .0625 = 2.75, std √(2.75/3) = .95743.
        run = self.variant(lambda c, f: decoupled_advantage([(1.0, c), (0.5, f)]))
        found = run(jnp.array([[1.0, 0, 0, 0]]), jnp.array([[0, 0, 0, 0.01]]))
        want = np.array([1.25, -0.75, -0.75, 0.25]) / 0.957427
        np.testing.assert_allclose(found[0], want, atol=2e-4)
        # The sum's advantages lose the format almost: .01·½ against 1.
        whole = group_advantage(jnp.array([[1.0, 0, 0, 0.005]]))[0]
        assert abs(whole[3] - whole[1]) < 0.02


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_against_a_loop_with_what_does_not_apply(scale, baseline):
    rng = np.random.default_rng(0)
    terms = [(0.7, rng.normal(size=(5, 4))), (1.3, rng.integers(0, 2, (5, 4)).astype(float))]
    terms[0][1][rng.random((5, 4)) < 0.3] = np.nan
    terms[0][1][0] = np.nan  # applies to none of the group
    terms[1][1][1] = 1.0  # all equal
    total = np.zeros((5, 4))
    for weight, reward in terms:
        for p, row in enumerate(reward):
            known = np.flatnonzero(~np.isnan(row))
            for i in known:
                others = known[known != i] if baseline == "leave_one_out" else known
                made = row[i] - (row[others].mean() if len(others) else row[i])
                if scale == "group":
                    made /= (row[known].std(ddof=1) if len(known) > 1 else 0.0) + 1e-6
                if scale == "batch":
                    made /= reward[~np.isnan(reward)].std(ddof=1) + 1e-6
                total[p, i] += weight * made
    want = (total - total.mean()) / (total.std(ddof=1) + 1e-6)
    arrays = [(weight, jnp.asarray(reward, jnp.float32)) for weight, reward in terms]
    found = decoupled_advantage(arrays, scale=scale, baseline=baseline)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_one_term_is_the_group_advantage_normalised_over_the_batch():
    reward = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)
    plain = group_advantage(reward)
    found = decoupled_advantage([(3.0, reward)])
    np.testing.assert_allclose(found, plain / jnp.std(plain, ddof=1), rtol=1e-4)
    assert not np.any(decoupled_advantage([(1.0, jnp.ones((3, 4)))]))
    assert not np.any(decoupled_advantage([(1.0, jnp.full((3, 4), jnp.nan))]))
    # Known rewards that are equal: exactly 0, though their mean rounds.
    value = np.random.default_rng(2).random((50, 1)).astype(np.float32)
    equal = jnp.asarray(np.where([[1, 1, 1, 1, 1, 1, 0]], value, np.nan))
    assert not np.any(decoupled_advantage([(1.0, equal)]))
