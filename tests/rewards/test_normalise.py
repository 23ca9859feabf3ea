import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.rewards import combine, normalise
from distill_jax.rewards.normalise import NORMALISERS
from distill_jax.rewards.settings import RewardSettings

FRESH = normalise.fresh()
ALL = sorted(NORMALISERS)


def after(name, *batches, momentum=0.9):
    state = FRESH
    for batch in batches:
        x = jnp.asarray(batch, jnp.float32)
        state = normalise.update(name, state, x, jnp.ones_like(x), momentum)
    return [float(value) for value in normalise.centre_and_spread(name, state)]


def test_before_the_first_batch_nothing_changes():
    for name in ALL:
        assert after(name) == [0.0, 1.0]


# (3, −4): mean −.5, mean square 12.5. Then (2, −2): mean 0, mean square 4. With μ = .9 the weights
# are .09 and .1 of .19.
MEAN, SQUARE = (0.09 * -0.5 + 0) / 0.19, (0.09 * 12.5 + 0.1 * 4) / 0.19


LEAST, MOST = (0.09 * -4 + 0.1 * -2) / 0.19, (0.09 * 3 + 0.1 * 2) / 0.19


@pytest.mark.parametrize(
    ("name", "centre", "spread"),
    [
        ("rms", 0.0, SQUARE**0.5),
        ("mean_std", MEAN, (SQUARE - MEAN**2) ** 0.5),
        # Every value counts alike: 3, −4, 2, −2.
        ("z_score", -0.25, np.std([3, -4, 2, -2])),
        ("min_max", (LEAST + MOST) / 2, (MOST - LEAST) / 2),
        # Medians −.5 and 0; quartiles −2.25, 1.25 and −1, 1; / 1.349.
        ("robust", 0.09 * -0.5 / 0.19, (0.09 * 3.5 + 0.1 * 2.0) / 0.19 / 1.3489795),
    ],
)  # fmt: skip
def test_two_batches_by_hand(name, centre, spread):
    np.testing.assert_allclose(after(name, [3, -4], [2, -2]), [centre, spread], rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_an_empty_or_infinite_batch_changes_nothing(name):
    x, mask = jnp.array([2.0, 3.0]), jnp.ones(2)
    state = normalise.update(name, FRESH, x, mask, 0.5)
    for bad in (jnp.array([jnp.nan, 1.0]), jnp.array([jnp.inf, 1.0])):
        assert normalise.update(name, state, bad, mask, 0.5) == state
    assert normalise.update(name, state, x, jnp.zeros(2), 0.5) == state
    # What stands under the mask is never looked at.
    more, holes = jnp.array([2.0, jnp.nan, 3.0]), jnp.array([1.0, 0.0, 1.0])
    kept = normalise.update(name, FRESH, more, holes, 0.5)
    np.testing.assert_allclose(
        normalise.centre_and_spread(name, kept), normalise.centre_and_spread(name, state), rtol=1e-6
    )


def test_an_outlier_hardly_moves_the_robust_one():
    calm = np.linspace(-1, 1, 101)
    wild = np.append(calm[:-1], 1e6)
    np.testing.assert_allclose(after("robust", wild), after("robust", calm), atol=0.03)
    assert after("mean_std", wild)[1] > 1000


rewards = st.lists(st.floats(-5, -(2.0**-7), width=32), min_size=16, max_size=16)


@pytest.mark.parametrize("name", ALL)
@given(rewards)
@settings(max_examples=30, deadline=None)
def test_no_normaliser_pays_for_length(name, tokens):
    """Log-probabilities: every further token costs, before and after."""
    reward = jnp.asarray(tokens, jnp.float32)[None]
    chosen = RewardSettings(normaliser=name, clip=0.0)
    out, _ = combine.normalised(chosen, FRESH, reward, jnp.ones_like(reward), sequences=False)
    assert np.all(np.diff(np.cumsum(np.asarray(out), axis=1), axis=1) < 0)
    # Sequences keep their order, however long they are.
    lengths = np.arange(1, len(tokens) + 1)
    totals = jnp.asarray(np.cumsum(tokens)[lengths - 1], jnp.float32)
    scaled, _ = combine.normalised(chosen, FRESH, totals, jnp.ones_like(totals), sequences=True)
    assert np.all(np.diff(np.asarray(scaled)) <= 0)


def test_a_centred_token_would_pay_for_length():
    """What is avoided, with the same rewards: some tokens would add to their sequence."""
    reward = -np.random.default_rng(0).exponential(size=(40, 6))
    shifted = (reward - reward.mean()) / reward.std()
    assert np.any(np.diff(np.cumsum(shifted, axis=1), axis=1) > 0)


def test_clipped_and_off():
    x = jnp.array([1.0, 1.0, 1.0, -40.0])
    chosen = RewardSettings(clip=1.5)
    out, state = combine.normalised(chosen, FRESH, x, jnp.ones(4), sequences=True)
    assert out.tolist()[3] == -1.5 and float(state["weight"]) > 0
    off = RewardSettings(normaliser="none", clip=1.5)
    out, state = combine.normalised(off, FRESH, x, jnp.ones(4), sequences=True)
    assert out is x and state is FRESH


@pytest.mark.parametrize("name", ALL)
def test_sequences_are_centred_and_tokens_are_not(name):
    x = jnp.array([-1.0, -2.0, -4.0, -9.0])
    chosen = RewardSettings(normaliser=name, clip=0.0)
    tokens, state = combine.normalised(chosen, FRESH, x, jnp.ones(4), sequences=False)
    centre, spread = (float(value) for value in normalise.centre_and_spread(name, state))
    np.testing.assert_allclose(tokens, x / spread, rtol=1e-5)
    whole, _ = combine.normalised(chosen, FRESH, x, jnp.ones(4), sequences=True)
    np.testing.assert_allclose(whole, (x - centre) / spread, rtol=1e-5, atol=1e-6)
    assert (centre == 0.0) == (name == "rms")
