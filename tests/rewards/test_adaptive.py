import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill_jax.rewards import adaptive, combine
from distill_jax.rewards.settings import RewardSettings

RIGHT = jnp.array([[1.0, 0, 0, 1], [0, 0, 1, 0]])


def gain(value_PG, right_PG=RIGHT):
    found, there = adaptive.correlation(jnp.asarray(value_PG, jnp.float32), right_PG)
    return float(found) if bool(there) else None


def test_correlation_by_hand():
    assert gain(RIGHT) == pytest.approx(1.0)
    assert gain(-3 * RIGHT) == pytest.approx(-1.0)
    # A shift of a whole group is no matter of its samples.
    assert gain(RIGHT + jnp.array([[100.0], [-100.0]])) == pytest.approx(1.0, abs=1e-4)
    # One group: values (2, 0), right (1, 0) and a third of neither: by numpy.
    value, right = np.array([[2.0, 0.0, 1.5]]), np.array([[1.0, 0.0, 0.0]])
    assert gain(value, jnp.asarray(right)) == pytest.approx(np.corrcoef(value, right)[0, 1])


def test_no_correlation_where_nothing_differs():
    assert gain(jnp.ones((2, 4))) is None
    assert gain(RIGHT, jnp.ones((2, 4))) is None
    # A group that is right throughout says nothing of a term that differs in it.
    mixed = jnp.array([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    value = jnp.array([[1.0, 0, 0, 1], [9, -9, 5, 0]])
    assert gain(value, mixed) == pytest.approx(1.0)


def test_what_does_not_apply_is_left_out():
    value = jnp.where(RIGHT > 0, 5.0, 1.0).at[0, 1].set(jnp.nan)
    assert gain(value) == pytest.approx(1.0)
    assert gain(value, RIGHT.at[1, 0].set(jnp.nan)) == pytest.approx(1.0)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)),
       hnp.arrays(np.bool_, (3, 4)))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_weights_stay_within_half_and_twice(value, right):
    state = adaptive.fresh()
    for _ in range(3):
        values = {"intrinsic": jnp.asarray(value)}
        state = adaptive.update(state, values, jnp.asarray(right, jnp.float32), 0.5)
    found = {name: float(factor) for name, factor in adaptive.multipliers(state).items()}
    assert 0.5 <= found["intrinsic"] <= 2.0
    assert found["format"] == found["custom"] == 1.0


def test_a_term_against_correctness_is_halved_and_lives():
    state = adaptive.fresh()
    for _ in range(200):
        state = adaptive.update(state, {"format": -RIGHT, "intrinsic": RIGHT}, RIGHT, 0.9)
    found = adaptive.multipliers(state)
    assert float(found["format"]) == pytest.approx(0.5)
    assert float(found["intrinsic"]) == pytest.approx(2.0)
    for _ in range(50):  # and comes back when it changes
        state = adaptive.update(state, {"format": RIGHT}, RIGHT, 0.9)
    assert float(adaptive.multipliers(state)["format"]) > 1.9


def test_weights_do_not_chase_themselves():
    """The rule sees neither weights nor sizes: a term a thousand times greater gains the same."""
    value = RIGHT + jnp.array([[0.1, 0.4, -0.2, 0.3], [0.2, 0.0, 0.5, 0.1]])
    small = adaptive.update(adaptive.fresh(), {"custom": value}, RIGHT, 0.9)
    great = adaptive.update(adaptive.fresh(), {"custom": 1000 * value}, RIGHT, 0.9)
    np.testing.assert_allclose(
        adaptive.multipliers(small)["custom"], adaptive.multipliers(great)["custom"], rtol=1e-5
    )


def test_joined_weights_change_and_correctness_keeps_its_own():
    mask = jnp.ones((4, 2))
    terms = {"correctness": jnp.array([1.0, 0, 0, 1]), "format": jnp.array([1.0, 0, 0, 1])}
    batch = (terms, None, mask, jnp.ones(4, bool))
    chosen = RewardSettings(intrinsic_weight=0.0, format_weight=0.2, adaptive=True, momentum=0.0)
    joined = combine.join(chosen, combine.fresh_state(), *batch, dense=False, samples=4)
    # Format goes along with right answers, so its .2 becomes .4.
    np.testing.assert_allclose(joined.reward_B, [1.4, 0, 0, 1.4], rtol=1e-6)
    assert float(joined.metrics["rewards/format/weight"]) == pytest.approx(0.4)
    assert float(joined.metrics["rewards/correctness/weight"]) == 1.0
    fixed = RewardSettings(intrinsic_weight=0.0, format_weight=0.2)
    joined = combine.join(fixed, combine.fresh_state(), *batch, dense=False, samples=4)
    np.testing.assert_allclose(joined.reward_B, [1.2, 0, 0, 1.2], rtol=1e-6)
