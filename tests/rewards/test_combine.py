import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.rewards import combine, normalise
from distill_jax.rewards.settings import RewardSettings

FRESH = normalise.fresh()


def mask_of(*lengths):
    return (np.arange(6)[None] < np.array(lengths)[:, None]).astype(np.float32)


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
    apart = np.array([[0, 1, 0, 1, 0]], np.float32)  # of the model, not of an output between
    assert combine.on_last_token(jnp.array([2.0]), apart).tolist() == [[0, 0, 0, 2, 0]]


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="right=0.0 with wrong=0.0"):
        RewardSettings(right=0.0)
    with pytest.raises(ConfigError, match="gamma=0.9 with form=canonical"):
        RewardSettings(gamma=0.9)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        RewardSettings(correctness_weight=0.0, intrinsic_weight=0.0)
    assert RewardSettings(gamma=0.9, form="raw").gamma == 0.9
