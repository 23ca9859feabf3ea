"""Sampler-to-trainer weights and the top-entropy mask."""

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.importance import (
    MODES,
    importance_weight,
    off_policy_mask,
    top_entropy_mask,
)


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # ratios .5, 1, 4 with cap 2; the fourth token is not the sampler's
        ("truncate", [0.5, 1.0, 2.0, 0.0]),
        ("mask", [0.5, 1.0, 0.0, 0.0]),
        ("none", [1.0, 1.0, 1.0, 0.0]),
        # of the row: .5·1·4 = 2
        ("sequence_truncate", [2.0, 2.0, 2.0, 0.0]),
        ("sequence_mask", [2.0, 2.0, 2.0, 0.0]),
        # bounds .8 and 2
        ("truncate", [0.8, 1.0, 2.0, 0.0], 0.8),
        ("mask", [0.0, 1.0, 0.0, 0.0], 0.8),
        # bounds of the row's 2: [.8, 1.5], [1.5, 2.5], [2.5, 3]
        ("sequence_truncate", [1.5, 1.5, 1.5, 0.0], 0.8, 1.5),
        ("sequence_mask", [0.0, 0.0, 0.0, 0.0], 0.8, 1.5),
        ("sequence_mask", [2.0, 2.0, 2.0, 0.0], 1.5, 2.5),
        ("sequence_truncate", [2.5, 2.5, 2.5, 0.0], 2.5, 3.0),
        ("sequence_mask", [0.0, 0.0, 0.0, 0.0], 2.5, 3.0),
    )
    def test_weight(self, mode, expected, floor=0.0, cap=2.00001):
        trainer = jnp.log(jnp.array([[0.05, 0.1, 0.4, 0.0]]))
        sampler = jnp.log(jnp.array([[0.1, 0.1, 0.1, 0.0]]))  # −inf − −inf is NaN: masked
        mask = jnp.array([[1.0, 1.0, 1.0, 0.0]])
        run = self.variant(
            lambda a, b: importance_weight(a, b, mask, mode=mode, cap=cap, floor=floor)
        )
        np.testing.assert_allclose(run(trainer, sampler), [expected], rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # mean of log π_sampler − log π: row 0 (.6 + .0)/2 = .3, row 1 (.1 + .3 + .2)/3 = .2
        (0.1, [[1, 0, 0], [0, 0, 1]]),
        (0.25, [[1, 0, 0], [1, 1, 1]]),
        (0.35, [[1, 1, 0], [1, 1, 1]]),
    )
    def test_off_policy(self, threshold, expected):
        moved = jnp.array([[0.6, 0.0, jnp.nan], [0.1, 0.3, 0.2]])
        logp = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]])
        advantage = jnp.array([[0.5, -0.5, -1.0], [-1.0, -1.0, 0.0]])
        mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
        run = self.variant(lambda p, q: off_policy_mask(p, q, advantage, mask, threshold=threshold))
        np.testing.assert_array_equal(run(logp, logp + moved), expected)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # entropies of the five kept tokens: .9 .7 .5 .3 .1
        (0.2, [[0, 1, 0], [0, 0, 0]]),  # ⌈1⌉ = 1
        (0.3, [[0, 1, 0], [1, 0, 0]]),  # ⌈1.5⌉ = 2
        (1.0, [[1, 1, 0], [1, 1, 1]]),
    )
    def test_top_entropy(self, fraction, expected):
        entropy = jnp.array([[0.5, 0.9, 5.0], [0.7, 0.1, 0.3]])
        mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
        run = self.variant(lambda e, m: top_entropy_mask(e, m, fraction))
        np.testing.assert_array_equal(run(entropy, mask), expected)


@hypothesis.given(
    hnp.arrays(np.float32, (3, 10), elements=st.floats(0, 5, width=32), unique=True),
    hnp.arrays(np.bool_, (3, 10)),
    st.sampled_from([1, 2, 5, 7, 10]),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_top_entropy_equals_sorting(entropy, mask, tenths):
    kept = top_entropy_mask(jnp.asarray(entropy), jnp.asarray(mask, jnp.float32), tenths / 10)
    count = -(-tenths * int(mask.sum()) // 10)  # exact ceiling
    threshold = np.sort(entropy[mask])[::-1][count - 1] if count else np.inf
    np.testing.assert_array_equal(kept, mask & (entropy >= threshold))


def test_top_entropy_counts_exactly():
    # float32: .6·25 = 15.000001
    mask = jnp.ones((1, 25))
    assert int(top_entropy_mask(jnp.arange(25.0)[None], mask, 0.6).sum()) == 15
    assert int(top_entropy_mask(jnp.arange(25.0)[None], mask, 0.61).sum()) == 16


def test_bad_settings():
    x = jnp.zeros((1, 1))
    with pytest.raises(ConfigError, match="truncate, mask, seq"):
        importance_weight(x, x, x, mode="clip")
    for fraction in (0.0, 1.5):
        with pytest.raises(ConfigError, match="at most 1"):
            top_entropy_mask(x, x, fraction)


def test_weights_have_no_gradient():
    def total(x):
        weights = [importance_weight(x, 0 * x, 1 + 0 * x, mode=m) for m in MODES]
        near = off_policy_mask(x, 0 * x, -1 + 0 * x, 1 + 0 * x, threshold=0.1)
        return sum(w.sum() for w in (*weights, near))

    assert not np.any(jax.grad(total)(jnp.full((2, 3), 0.3)))
