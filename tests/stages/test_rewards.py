"""Rewards of a rollout as the step joins them, without models."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rewards import combine
from distill_jax.rewards.process import ProcessSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.stages.rl_prepare import prepare
from distill_jax.training.algorithms import ALGORITHMS, PPOSettings
from distill_jax.training.losses import PolicyScores

pytestmark = pytest.mark.slow


# Correctness 1 and ½, and half of the mean −1 or of the sums −4 and −2.
@pytest.mark.parametrize(("how", "wanted_B"), [("mean", [0.5, 0.0]), ("sum", [-1.0, -0.5])])
def test_ppo_rewards_do_not_pay_for_ending_early_unless_asked(how: str, wanted_B: list) -> None:
    # The teacher gives every token log π = −1. Two answers: four tokens and right, two and wrong.
    settings = RewardSettings(
        sequence=how,
        normaliser="none",
        intrinsic_weight=0.5,
        correctness_weight=1.0,
        wrong=0.5,
        right=1.0,
    )
    made: dict[str, Any] = {
        "rewards": settings,
        "bonus": ProcessSettings(),
        "algorithm": ALGORITHMS["ppo"],
        "settings": PPOSettings(kl_coef=0.0),
        "samples": 2,
        "max_new_tokens": 24,
    }
    mask_BR = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
    zero_BR, zero_B = jnp.zeros((2, 4)), jnp.zeros(2)
    ended_B, zero = np.array([True, True]), np.zeros((2, 4), np.int32)
    batch = RolloutBatch(zero, zero[:, 0], mask_BR.sum(1), mask_BR, zero, ended_B, zero_BR)
    terms = {"correctness": jnp.array([1.0, 0.5])}
    teacher = TeacherScores(zero_BR - 1.0, zero_BR, zero_B)
    old = PolicyScores(zero_BR, None, zero_BR, zero_B)
    state = combine.fresh_state()
    arrays = (batch, terms, mask_BR, teacher, old)
    (_, record), _, _ = prepare(state, *arrays, ref_logp_BR=None, steps=None, **made)
    np.testing.assert_allclose(record["reward_B"], wanted_B, rtol=1e-6)
