import math

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.models.layers import (
    apply_rope,
    rms_norm,
    rope_frequencies,
    rope_table,
    segment_positions,
)
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.rope_scaling import Llama3Scaling, YarnConfig


def _config(**other):
    values = {"rope_theta": 100.0, "head_dim": 4, **other}
    return QwenConfig("qwen2", 16, 8, 8, 1, 2, 1, **values)


def test_plain_rope_by_hand():
    # head_dim 4, theta 100: frequencies 100^0 = 1 and 100^(-1/2) = .1. Dimension i turns with
    # i + 2 (rotate-half): position 2 turns the first pair by 2 and the second by .2.
    np.testing.assert_allclose(rope_frequencies(_config()), [1.0, 0.1], rtol=1e-6)
    x = jnp.array([[[1.0, 0.0, 0.0, 1.0]]])  # [T=1, heads=1, 4]
    turned = apply_rope(x, rope_table(_config(), jnp.array([2])))[0, 0]
    want = [math.cos(2), -math.sin(0.2), math.sin(2), math.cos(0.2)]
    np.testing.assert_allclose(turned, want, atol=1e-6)


def test_scores_depend_on_distance_only():
    config = _config(head_dim=16, rope_theta=10_000.0)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 16))

    def score(i, j):
        turn = [apply_rope(x, rope_table(config, jnp.array([p]))) for x, p in ((q, i), (k, j))]
        return float(jnp.sum(turn[0] * turn[1]))

    assert abs(score(7, 3) - score(104, 100)) < 1e-4
    assert abs(score(7, 3) - score(7, 4)) > 1e-3


def test_yarn_by_hand():
    # head_dim 8, theta 10_000: plain frequencies 1, .1, .01, .001. Context 1,000, factor 4.
    # dimension(r) = 8·ln(1000 / 2πr) / (2·ln 10000): fast 32 -> .6966, slow 1 -> 2.2017;
    # rounded outwards 0 and 3; ramp of pair i is i/3: pairs keep 1, 2/3, 1/3, 0 of their own.
    yarn = YarnConfig(4.0, 1000)
    got = rope_frequencies(_config(head_dim=8, rope_theta=10_000.0, rope_scaling=yarn))
    want = [1.0, 0.1 * (2 / 3 + 1 / 3 / 4), 0.01 * (1 / 3 + 2 / 3 / 4), 0.001 / 4]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_yarn_scales_cos_and_sin():
    yarn = YarnConfig(4.0, 1000)
    cos, sin = rope_table(_config(rope_scaling=yarn), jnp.arange(3))
    want = 0.1 * math.log(4) + 1  # 1.1386
    np.testing.assert_allclose(jnp.sqrt(cos**2 + sin**2), want, rtol=1e-5)
    given = YarnConfig(4.0, 1000, attention_factor=1.5)
    cos, _ = rope_table(_config(rope_scaling=given), jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(cos, 1.5)


def test_llama3_by_hand():
    # head_dim 8, theta 10_000: plain frequencies 1, .1, .01, .001 turn 1000·f/2π = 159.15, 15.915,
    # 1.5915 and .15915 times over the context of 1,000. Below 1 turn: divided by 8. Above 4: kept.
    # Between: (1.5915 − 1)/(4 − 1) = .19718 of it is kept.
    config = _config(head_dim=8, rope_theta=10_000.0, rope_scaling=Llama3Scaling(8.0, 1000))
    want = [1.0, 0.1, 0.01 * (0.19718 + 0.80282 / 8), 0.001 / 8]
    np.testing.assert_allclose(rope_frequencies(config), want, rtol=1e-5)
    cos, sin = rope_table(config, jnp.arange(3))
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, rtol=1e-5)


def test_rms_norm_by_hand():
    # mean of squares of [3, 4] is 12.5: [3, 4] / 3.535534 = [.848528, 1.131371]
    got = rms_norm(jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0]), 0.0)
    np.testing.assert_allclose(got, [0.848528, 2.262742], rtol=1e-5)


def test_rms_norm_takes_its_statistics_in_float32():
    x = jax.random.normal(jax.random.key(0), (4, 512)).astype(jnp.bfloat16)
    got = rms_norm(x, jnp.ones(512), 1e-6)
    want = rms_norm(x.astype(jnp.float32), jnp.ones(512), 1e-6)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


def test_positions_begin_at_zero_in_each_segment():
    # Rope shows differences of positions alone: the model's output would hardly tell.
    segment_BT = jnp.array([[1, 1, 2, 2, 2, 3, 0, 0], [5, 4, 4, 4, 4, 4, 4, 4]])
    want = [[0, 1, 0, 1, 2, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
    np.testing.assert_array_equal(segment_positions(segment_BT), want)
