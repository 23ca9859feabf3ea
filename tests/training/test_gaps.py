"""Outputs between the model's turns are gaps in every mask: values by hand, and gaps removed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.kernels.policy_losses import normaliser
from distill_jax.rewards import combine
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.batch import PolicyBatch, ScoredRollout

# Two turns of two and one token, an output of two tokens between them.
GAP = np.array([[1, 1, 0, 0, 1]], np.float32)
X = 1e9  # stands where nothing may be read


def test_advantages_of_ppo_skip_a_gap():
    # γ = λ = ½, rewards 0, 0, 4, values 1, 2, 2, the end is terminal.
    # δ₃ = 4 − 2 = 2; δ₂ = 0 + ½·2 − 2 = −1; δ₁ = 0 + ½·2 − 1 = 0.
    # A₃ = 2; A₂ = −1 + ¼·2 = −½; A₁ = 0 + ¼·(−½) = −⅛.
    rollout = ScoredRollout(
        response_mask_BR=GAP, loss_mask_BR=GAP, ended_B=np.array([True]), reward_PG=None,
        reward_BR=np.array([[0, 0, X, X, 4]], np.float32), old_logp_BR=None, ref_logp_BR=None,
        entropy_BR=None, value_BR=np.array([[1, 2, X, X, 2]], np.float32),
        end_value_B=np.array([X], np.float32), terms=None,
    )  # fmt: skip
    settings = PPOSettings(gamma=0.5, lam=0.5, kl_coef=0.0, whiten=False)
    made, _ = ALGORITHMS["ppo"].advantages(rollout, settings)
    np.testing.assert_allclose(made.advantage_BR, [[-0.125, -0.5, 0, 0, 2]], rtol=1e-6)
    np.testing.assert_allclose(made.return_BR, [[0.875, 1.5, 0, 0, 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "tokens"),
    # Raw, γ = 1: Q(s,a) − V of the state in which the model speaks next: 3 − 2, 2 − ½ and, at the
    # end, 1 − 0. Canonical: Q − V: 3 − 1, 2 − 2, 1 − ½.
    [("raw", [1, 1.5, 0, 0, 1]), ("canonical", [2, 0, 0, 0, 0.5])],
)
def test_the_teachers_reward_skips_a_gap(form, tokens):
    teacher = TeacherScores(
        q_BR=jnp.array([[3, 2, X, X, 1]], jnp.float32),
        value_BR=jnp.array([[1, 2, X, X, 0.5]], jnp.float32),
        end_value_B=jnp.array([X], jnp.float32),
    )
    settings = RewardSettings(form=form, normaliser="none", sequence="mean")
    ended_B = jnp.array([True])
    np.testing.assert_allclose(combine.intrinsic_BR(settings, teacher, GAP, ended_B), [tokens])
    join = functools.partial(
        combine.join, settings, combine.fresh_state(), {"correctness": jnp.array([1.0])}, teacher,
        jnp.asarray(GAP), ended_B, samples=1,
    )  # fmt: skip
    weights = settings.weights
    mean = sum(tokens) / 3  # over the three tokens that the model drew
    whole = weights["correctness"] + weights["intrinsic"] * mean
    np.testing.assert_allclose(join(dense=False).reward_B, [whole], rtol=1e-6)
    # A token's share; correctness stands on the last token of the last turn.
    dense = join(dense=True)
    want = weights["intrinsic"] * np.array(tokens) / 3
    want[4] += weights["correctness"]
    np.testing.assert_allclose(dense.reward_BR, [want], rtol=1e-6)
    np.testing.assert_allclose(dense.reward_B, [whole], rtol=1e-6)


def test_grpo_by_hand():
    # Rewards 1 and 0: advantages ±½/σ with σ = √½ (ddof 1). At ratio 1 a token's loss is −A: the
    # mean over each answer's own tokens, then over the answers.
    mask_BR = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 0, 0]], np.float32)
    value, metrics, gradient = _loss("grpo", mask_BR, _batch(mask_BR, gap=X), gap=X)
    assert value == pytest.approx(0.0, abs=1e-5) and metrics["entropy"] == pytest.approx(2.0)
    a = 0.5 / (0.5**0.5 + 1e-6)
    want = [[-a / 6, -a / 6, 0, 0, -a / 6], [a / 6, a / 6, a / 6, 0, 0]]
    np.testing.assert_allclose(gradient, want, rtol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_gap_is_as_if_removed(name):
    mask_BR = np.array([[1, 1, 0, 0, 1], [1, 0, 1, 1, 0]], np.float32)
    together_BR = np.array([[1, 1, 1, 0, 0]] * 2, np.float32)
    value, metrics, gradient = _loss(name, mask_BR, _batch(mask_BR, gap=X), gap=X)
    closed = _loss(name, together_BR, _batch(together_BR, gap=0.0), gap=0.0)
    assert value == pytest.approx(closed[0], rel=1e-5)
    for key in metrics:
        np.testing.assert_allclose(metrics[key], closed[1][key], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient[mask_BR > 0], closed[2][together_BR > 0], rtol=1e-4)
    assert not gradient[mask_BR == 0].any()


def _spread(values_BN, mask_BR, gap):
    """These values where the mask is 1, `gap` elsewhere."""
    out = np.full(mask_BR.shape, gap, np.float32)
    out[mask_BR > 0] = np.asarray(values_BN, np.float32).reshape(-1)
    return out


def _batch(mask_BR, gap):
    """A group of two answers of three tokens, of which the first is right."""
    spread = functools.partial(_spread, mask_BR=mask_BR, gap=gap)
    return ScoredRollout(
        response_mask_BR=mask_BR, loss_mask_BR=mask_BR, ended_B=np.array([True, False]),
        reward_PG=np.array([[1, 0]], np.float32),
        reward_BR=spread([[0.1, 0.2, 1], [0.3, 0.1, -0.5]]),
        old_logp_BR=spread([[-1, -2, -3], [-1, -1, -2]]),
        ref_logp_BR=spread([[-1.5, -2, -2], [-1, -2, -2]]),
        entropy_BR=spread([[1, 2, 3], [3, 2, 1]]),
        value_BR=spread([[0.5, 0.2, 0.1], [0, 0.3, 0.2]]),
        end_value_B=np.array([9, 0.4], np.float32), terms=None,
    )  # fmt: skip


def _loss(name, mask_BR, scored, gap):
    """(loss, metrics with the entropy, gradient by log-probability) on the old policy's scores."""
    algorithm = ALGORITHMS[name]
    settings = PPOSettings() if algorithm.uses_values else GroupSettings(beta=0.0)
    if name == "dr_grpo":
        settings = settings.at_length(8)
    made, _ = algorithm.advantages(scored, settings)
    batch = PolicyBatch(
        tokens_BT=None, prompts_PS=None, prompt_len_B=None, targets_BR=None, loss_mask_BR=mask_BR,
        behaviour_logp_BR=np.where(mask_BR > 0, scored.old_logp_BR, 0.0),
        old_logp_BR=scored.old_logp_BR, ref_logp_BR=scored.ref_logp_BR, advantages=made,
    )  # fmt: skip
    norm = normaliser(jnp.asarray(mask_BR))

    def loss(logp_BR):
        scores = {"logp_BR": logp_BR, "entropy_BR": scored.entropy_BR, "value_BR": scored.value_BR}
        value, metrics = algorithm.loss(scores, batch, norm, settings)
        kept = jnp.where(mask_BR > 0, scored.entropy_BR, 0.0)
        return value, {**metrics, "entropy": jnp.sum(kept) / norm.tokens}

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(scored.old_logp_BR)
    )
    return float(value), metrics, np.asarray(gradient)
