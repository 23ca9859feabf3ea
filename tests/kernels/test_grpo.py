"""Group advantages by hand and against a loop; zero variance; overlong punishment."""

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.grpo import group_advantage, overlong_punishment, zero_variance_groups


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # rewards [1,0,0,0]: mean .25, deviations [.75, −.25×3], Σ² = .5625 + 3·.0625 = .75
        # ddof 0: std √(.75/4) = .43301 → [1.7321, −.5774×3]
        (dict(ddof=0), [1.73205, -0.57735]),
        # ddof 1: std √(.75/3) = .5 → [1.5, −.5×3]
        (dict(ddof=1), [1.5, -0.5]),
        # Dr. GRPO: no division
        (dict(scale="none"), [0.75, -0.25]),
        # RLOO: 1 − 0; 0 − ⅓
        (dict(scale="none", baseline="leave_one_out"), [1.0, -1 / 3]),
    )
    def test_advantage(self, settings, expected):
        run = self.variant(lambda r: group_advantage(r, **settings))
        advantage = run(jnp.array([[1.0, 0.0, 0.0, 0.0]]))
        np.testing.assert_allclose(advantage[0], [expected[0]] + [expected[1]] * 3, atol=5e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_batch_scale(self):
        # all eight: two ones among eight: mean .25, Σ² = 2·.5625 + 6·.0625 = 1.5, ddof 1:
        # √(1.5/7) = .46291; groups' means .25: .75/.46291 = 1.6202
        reward = jnp.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
        advantage = self.variant(lambda r: group_advantage(r, scale="batch"))(reward)
        np.testing.assert_allclose(advantage[0], [1.6202] + [-0.54006] * 3, atol=1e-4)

    @chex.variants(with_jit=True, without_jit=True)
    def test_overlong(self):
        # L_max 20480, C 4096: free to 16384; 18432 is half way: −.5
        length = jnp.array([100, 16384, 18432, 20480, 30000])
        punish = self.variant(lambda n: overlong_punishment(n, 20480, 4096))(length)
        np.testing.assert_allclose(punish, [0, 0, -0.5, -1, -1])


def loop(reward, scale, ddof, baseline):
    out = np.zeros_like(reward)
    for p, row in enumerate(reward):
        for i in range(len(row)):
            others = np.delete(row, i) if baseline == "leave_one_out" else row
            out[p, i] = row[i] - others.mean()
        if scale == "group":
            out[p] /= row.std(ddof=ddof) + 1e-6
        elif scale == "batch":
            out[p] /= reward.std(ddof=ddof) + 1e-6
        if row.max() == row.min():
            out[p] = 0
    return out


@hypothesis.given(
    hnp.arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 0.1, 0.25, 1.0, -2.0])),
    st.sampled_from(["group", "batch", "none"]),
    st.sampled_from([0, 1]),
    st.sampled_from(["mean", "leave_one_out"]),
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_equals_loop(reward, scale, ddof, baseline):
    got = group_advantage(jnp.asarray(reward), scale=scale, ddof=ddof, baseline=baseline)
    expected = loop(reward.astype(np.float64), scale, ddof, baseline)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(np.asarray(got).sum(1), 0, atol=1e-4)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1, -7.7])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_zero_variance_is_exactly_zero(value, baseline, scale):
    # The float32 mean of seven equal numbers need not equal them; noise/1e-6 must not come out.
    reward = jnp.stack([jnp.full((7,), value), jnp.arange(7.0)])
    advantage = group_advantage(reward, scale=scale, baseline=baseline)
    np.testing.assert_array_equal(advantage[0], np.zeros(7))
    assert np.any(np.asarray(advantage[1]))
    np.testing.assert_array_equal(zero_variance_groups(reward), [True, False])


def test_group_of_one_is_zero():
    for baseline in ("mean", "leave_one_out"):
        advantage = group_advantage(jnp.array([[2.0], [3.0]]), baseline=baseline)
        np.testing.assert_array_equal(advantage, [[0.0], [0.0]])


@pytest.mark.parametrize("bad", [dict(scale="std"), dict(baseline="median")])
def test_unknown_settings(bad):
    with pytest.raises(ConfigError, match="one of"):
        group_advantage(jnp.zeros((1, 2)), **bad)


@pytest.mark.parametrize("buffer", [0, -1, 11])
def test_impossible_buffer(buffer):
    with pytest.raises(ConfigError, match="1 to max_len"):
        overlong_punishment(jnp.array([3]), 10, buffer)
