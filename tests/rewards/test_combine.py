import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.rewards import combine, normalise
from distill_jax.rewards.combine import RewardSettings
from distill_jax.rewards.correctness import correctness

FRESH = {"mean_square": jnp.float32(0.0), "weight": jnp.float32(0.0)}


def mask_of(*lengths):
    return (np.arange(6)[None] < np.array(lengths)[:, None]).astype(np.float32)


# --- running scale --------------------------------------------------------------------------------


def test_scale_by_hand():
    # Kept: 3 and −4, mean square 12.5. μ = .9: m = 1.25, w = .1, rms = √12.5.
    x = jnp.array([[3.0, -4.0, 99.0]])
    mask = jnp.array([[1.0, 1.0, 0.0]])
    assert float(normalise.rms(FRESH)) == 1.0
    one = normalise.update_scale(FRESH, x, mask, 0.9)
    np.testing.assert_allclose(normalise.rms(one), np.sqrt(12.5), rtol=1e-6)
    # Then a batch of mean square 4: m = .9·1.25 + .1·4 = 1.525, w = .19.
    two = normalise.update_scale(one, jnp.array([[2.0, -2.0, 0.0]]), mask, 0.9)
    np.testing.assert_allclose(normalise.rms(two), np.sqrt(1.525 / 0.19), rtol=1e-6)


def test_scale_is_left_alone_by_an_empty_or_infinite_batch():
    x, mask = jnp.array([2.0, 3.0]), jnp.ones(2)
    scale = normalise.update_scale(FRESH, x, mask, 0.5)
    for bad in (jnp.array([jnp.nan, 1.0]), jnp.array([jnp.inf, 1.0])):
        assert normalise.update_scale(scale, bad, mask, 0.5) == scale
    assert normalise.update_scale(scale, x, jnp.zeros(2), 0.5) == scale
    # What stands under the mask is never looked at.
    kept = normalise.update_scale(FRESH, jnp.array([2.0, jnp.nan]), jnp.array([1.0, 0.0]), 0.5)
    np.testing.assert_allclose(normalise.rms(kept), 2.0)


def test_scaling_never_pays_for_length():
    # Log-probabilities: every further token costs. (r − μ)/σ would pay for tokens above the mean.
    rng = np.random.default_rng(0)
    reward = -rng.exponential(size=(40, 6)).astype(np.float32)
    mask = np.ones_like(reward)
    settings = RewardSettings(clip=0.0)
    out, _ = combine.scaled(settings, FRESH, jnp.asarray(reward), jnp.asarray(mask))
    totals = np.cumsum(np.asarray(out), axis=1)
    assert np.all(np.diff(totals, axis=1) < 0)
    shifted = (reward - reward.mean()) / reward.std()
    assert np.any(np.diff(np.cumsum(shifted, axis=1), axis=1) > 0)  # what is avoided
    # Order and ratios of sequences are those of the unscaled reward.
    ratio = np.asarray(out) / reward
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def test_scaled_clips_and_can_be_off():
    x = jnp.array([1.0, 1.0, 1.0, -40.0])
    out, scale = combine.scaled(RewardSettings(clip=1.5), FRESH, x, jnp.ones(4))
    assert out.tolist()[3] == -1.5 and float(scale["weight"]) > 0
    out, scale = combine.scaled(RewardSettings(scale=False, clip=1.5), FRESH, x, jnp.ones(4))
    assert out is x and scale is FRESH


# --- joining --------------------------------------------------------------------------------------


def test_sequence_reward_is_mean_or_sum_of_kept_tokens():
    reward = np.array([[-1, -2, -3, 9, 9, 9], [-4, 9, 9, 9, 9, 9], [9] * 6], np.float32)
    mask = mask_of(3, 1, 0)
    mean = combine.sequence_B(RewardSettings(sequence="mean"), reward, mask)
    total = combine.sequence_B(RewardSettings(sequence="sum"), reward, mask)
    assert mean.tolist() == [-2, -4, 0] and total.tolist() == [-6, -4, 0]
    # A token's share: −1/3, −2/3, −3/3 of the mean; the token itself of the sum.
    kept = np.where(mask > 0, reward, 0)
    for how, row in (("mean", [-1 / 3, -2 / 3, -1, 0, 0, 0]), ("sum", [-1, -2, -3, 0, 0, 0])):
        settings = RewardSettings(sequence=how)
        share = combine.share_BR(settings, kept, mask)
        np.testing.assert_allclose(share[0], row, rtol=1e-6)
        whole = combine.sequence_B(settings, reward, mask)
        np.testing.assert_allclose(jnp.sum(share, axis=1), whole, rtol=1e-6)


def test_not_a_number_means_not_applicable():
    nan = jnp.nan
    terms = {
        "a": (2.0, jnp.array([1.0, nan, 0.25, nan])),
        "b": (1.0, jnp.array([nan, -0.5, -0.5, nan])),
    }
    assert combine.weighted_sum(terms).tolist() == [2.0, -0.5, 0.0, 0.0]


def test_a_sparse_reward_stands_on_the_last_token():
    value = jnp.array([0.5, jnp.nan, 2.0, jnp.inf])
    got = combine.on_last_token(value, mask_of(3, 2, 0, 1))
    want = np.zeros((4, 6))
    want[0, 2], want[3, 0] = 0.5, np.inf  # infinite stays infinite: the update will be skipped
    np.testing.assert_array_equal(got, want)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="right=0.0 with wrong=0.0"):
        RewardSettings(right=0.0)
    with pytest.raises(ConfigError, match="gamma=0.9 with form=canonical"):
        RewardSettings(gamma=0.9)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        RewardSettings(correctness_weight=0.0, intrinsic_weight=0.0)
    assert RewardSettings(gamma=0.9, form="raw").gamma == 0.9


# --- correctness ----------------------------------------------------------------------------------


def test_correctness_keeps_fractions_and_marks_what_it_cannot_tell(monkeypatch):
    texts = ["so #### 24", "so #### 23", "no answer at all"]
    got = correctness(["24", "24", "24"], texts, right=0.75, wrong=-0.25)
    # A fractional reward is not rounded to an integer.
    assert got.reward_B.tolist() == [0.75, -0.25, -0.25] and got.reward_B.dtype == np.float32
    assert got.right_B.tolist() == [True, False, False]
    from distill_jax import answers

    undecided = answers.Verdict("undecided", "for this test")
    monkeypatch.setattr(answers, "check_batch", lambda *_: [undecided])
    got = correctness(["24"], ["#### 24"], right=1, wrong=0)
    assert np.isnan(got.reward_B[0]) and got.undecided_B[0] and not got.right_B[0]


def test_correctness_of_nothing():
    got = correctness([], [], right=1.0, wrong=0.0)
    assert len(got.reward_B) == len(got.right_B) == 0 and got.right_B.dtype == bool
