import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.training.optimizer import OptimizerSettings, learning_rate, make


def rates(total, steps, **settings):
    rate = learning_rate(OptimizerSettings(learning_rate=1.0, **settings), total)
    return [float(rate(step)) for step in steps]


def test_schedules_by_hand():
    # Ten updates, no warm-up, down to a fifth: half-way is the mean of 1 and .2 for both shapes.
    assert rates(10, [0, 9, 50], schedule="constant") == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(
        rates(10, [0, 5, 10, 50], schedule="linear", final_fraction=0.2), [1, 0.6, 0.2, 0.2],
        rtol=1e-6,
    )  # fmt: skip
    # A quarter of a cosine: .2 + .8·(1 + cos(π/4))/2 = .88284.
    np.testing.assert_allclose(
        rates(8, [0, 2, 4, 8, 50], schedule="cosine", final_fraction=0.2),
        [1, 0.88284, 0.6, 0.2, 0.2],
        atol=1e-5,
    )


def test_warm_up_by_hand():
    # Four steps of warm-up: 1/4, 2/4, 3/4, 1; then eight of linear decay from 1.
    got = rates(12, range(13), schedule="linear", warmup_steps=4, final_fraction=0.0)
    want = [0.25, 0.5, 0.75, 1, *(1 - i / 8 for i in range(9))]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert rates(5, [0, 1], schedule="constant", warmup_steps=1) == [1.0, 1.0]


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="warmup_steps=10 of 10 updates"):
        rates(10, [0], warmup_steps=10)


def test_the_first_update_by_hand():
    # Gradient (3, 4) has norm 5 and is scaled to (.6, .8); Adam's first step is ±lr whatever the
    # size; decoupled decay adds lr·.1·weight.
    tx = make(OptimizerSettings(learning_rate=0.01, schedule="constant", weight_decay=0.1), 10)
    params = {"w": jnp.array([2.0, -2.0])}
    state = tx.init(params)
    changes, state = tx.update({"w": jnp.array([3.0, 4.0])}, state, params)
    np.testing.assert_allclose(changes["w"], [-0.012, -0.008], rtol=1e-5)
    moments = list(np.asarray(optax.tree.get(state, "mu")["w"]))
    np.testing.assert_allclose(moments, [0.06, 0.08], rtol=1e-5)  # (1 − .9)·(.6, .8)
