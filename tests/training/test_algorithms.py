import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.policy_losses import normaliser
from distill_jax.training.algorithms import (
    ALGORITHMS,
    GroupSettings,
    PPOSettings,
    group_advantages,
    group_loss,
    ppo_advantages,
    ppo_loss,
)
from distill_jax.training.batch import Advantages, PolicyBatch, ScoredRollout

ONES = np.ones((1, 3), np.float32)


def test_entries():
    assert set(ALGORITHMS) == {
        "ppo", "grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo", "dppo_tv", "gmpo"
    }  # fmt: skip
    assert [name for name, a in ALGORITHMS.items() if a.uses_values] == ["ppo"]
    assert ALGORITHMS["ppo"].reference_weight(PPOSettings(kl_coef=0.3)) == 0.3
    assert ALGORITHMS["gspo"].reference_weight(GroupSettings(beta=0.2)) == 0.2


def scored(**arrays):
    """A rollout of these arrays; its tokens are all trained unless a loss mask is given."""
    arrays.setdefault("loss_mask_BR", arrays.get("response_mask_BR"))
    names = [f.name for f in dataclasses.fields(ScoredRollout)]
    assert set(arrays) <= set(names)
    return ScoredRollout(**{name: arrays.get(name) for name in names})


def policy_batch(**arrays):
    """A batch of these arrays, of a model's inputs and of what an algorithm makes."""
    made = {f.name: arrays.pop(f.name, None) for f in dataclasses.fields(Advantages)}
    names = [f.name for f in dataclasses.fields(PolicyBatch) if f.name != "advantages"]
    assert set(arrays) <= set(names)
    return PolicyBatch(**{name: arrays.get(name) for name in names}, advantages=Advantages(**made))


# --- group methods --------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
def advantages(rollout, settings):
    """Those of a group method."""
    return group_advantages(rollout, settings)[0]


def test_group_advantages_by_hand():
    # Rewards [1,0,0,0]: ddof 1 gives [1.5, −.5, −.5, −.5]; a group of equal rewards gives 0.
    rollout = scored(
        reward_PG=np.array([[1.0, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]], np.float32),
        response_mask_BR=np.array([[1.0, 1.0], [1.0, 0.0]] * 4, np.float32),
    )
    arrays = advantages(rollout, GroupSettings())
    want = [[1.5, 1.5], [-0.5, 0], [-0.5, -0.5], [-0.5, 0], [0, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(arrays.advantage_BR, want, atol=1e-5)
    assert arrays.return_BR is arrays.old_value_BR is arrays.top_entropy_BR is None
    arrays = advantages(rollout, GroupSettings(scale="none", baseline="leave_one_out"))
    np.testing.assert_allclose(arrays.advantage_BR[:4, 0], [1, -1 / 3, -1 / 3, -1 / 3])


def test_top_entropy_is_chosen_over_the_whole_rollout():
    rollout = scored(
        reward_PG=np.array([[1.0, 0.0]], np.float32),
        response_mask_BR=np.ones((2, 3), np.float32),
        entropy_BR=np.array([[0.1, 0.9, 0.2], [0.8, 0.7, 0.3]], np.float32),
    )
    arrays = advantages(rollout, GroupSettings(top_entropy=0.5))
    assert arrays.top_entropy_BR.tolist() == [[0, 1, 0], [1, 1, 0]]
    # Tokens that are not trained do not count: of the first row's three, ⌈1.5⌉ = 2 stay.
    masked = rollout.replace(loss_mask_BR=np.array([[1, 1, 1], [0, 0, 0]], np.float32))
    arrays = advantages(masked, GroupSettings(top_entropy=0.5))
    assert arrays.top_entropy_BR.tolist() == [[0, 1, 1], [0, 0, 0]]


def loss_of(name, settings, logp, batch, entropy=None):
    batch = policy_batch(**{"loss_mask_BR": ONES, "behaviour_logp_BR": logp, **batch})
    scores = {"logp_BR": jnp.asarray(logp), "entropy_BR": entropy}
    return group_loss(name)(scores, batch, normaliser(batch.loss_mask_BR), settings)


def test_importance_correction_by_hand():
    # log π_trainer − log π_sampler = [0, ln 1.5, ln 4], A = 1, ρ = 1: the loss is −mean weight.
    logp = np.array([[-1.0, -1.0, -1.0]], np.float32)
    batch = {
        "behaviour_logp_BR": logp - np.log([[1.0, 1.5, 4.0]]).astype(np.float32),
        "advantage_BR": ONES,
    }
    for mode, want in (
        ("truncate", (1 + 1.5 + 2) / 3),
        ("mask", (1 + 1.5 + 0) / 3),
        ("none", 1.0),
    ):
        value, _ = loss_of("bnpo", GroupSettings(importance=mode), logp, batch)
        np.testing.assert_allclose(value, -want, rtol=1e-6)


def test_importance_floor_and_sequence_modes_reach_the_loss():
    # Ratios [.5, 1, 4] with bounds .8 and 3: [.8, 1, 3]; their product 2 for each token.
    logp = np.full((1, 3), -1.0, np.float32)
    batch = {
        "behaviour_logp_BR": logp - np.log([[0.5, 1.0, 4.0]]).astype(np.float32),
        "advantage_BR": ONES,
    }
    how = {"importance_floor": 0.8, "importance_cap": 3.0}
    for mode, want in (("truncate", 4.8 / 3), ("mask", 1 / 3), ("sequence_mask", 2.0)):
        value, _ = loss_of("bnpo", GroupSettings(importance=mode, **how), logp, batch)
        np.testing.assert_allclose(value, -want, rtol=1e-6)
    with pytest.raises(ConfigError, match=r"importance_floor=2.0; wanted: less than importance_ca"):
        GroupSettings(importance_floor=2.0)


def test_sequences_far_from_the_policy_keep_their_tokens_of_positive_advantage():
    # Mean of log π_sampler − log π is .3. A = [1, −1, −1], ρ = 1: −(1 − 1 − 1)/3, or −1/3.
    logp = np.full((1, 3), -1.0, np.float32)
    batch = {
        "behaviour_logp_BR": logp + np.array([[0.5, 0.4, 0.0]], np.float32),
        "advantage_BR": np.array([[1.0, -1.0, -1.0]], np.float32),
    }
    for threshold, want, masked in ((None, 1 / 3, None), (0.31, 1 / 3, 0), (0.29, -1 / 3, 2 / 3)):
        settings = GroupSettings(importance="none", off_policy_mask_threshold=threshold)
        value, metrics = loss_of("bnpo", settings, logp, batch)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        got = metrics.get("sampling/off_policy_masked_mean")
        assert got is masked is None or float(got) == pytest.approx(masked)


def test_top_entropy_trains_those_tokens_alone():
    logp = np.array([[-1.0, -2.0, -3.0]], np.float32)
    entropy = np.array([[0.3, 0.9, 0.5]], np.float32)
    settings = GroupSettings(top_entropy=0.34)  # ⌈1.02⌉ = 2 of 3

    def value(logp, **extra):
        batch = {"advantage_BR": ONES, "old_logp_BR": jax.lax.stop_gradient(logp), **extra}
        return loss_of("bnpo", settings, logp, batch, entropy)[0]

    # Chosen beforehand over the rollout, the batch's own entropies are not looked at.
    grad = jax.jit(jax.grad(lambda x, top_BR: value(x, top_entropy_BR=top_BR)))
    given = grad(logp, np.array([[1.0, 0, 0]], np.float32))
    np.testing.assert_allclose(given, [[-1 / 3, 0, 0]], atol=1e-6)
    # The advantages choose: of these three entropies ⌈1.02⌉ = 2 are trained.
    rollout = scored(reward_PG=jnp.zeros((1, 1)), response_mask_BR=ONES, entropy_BR=entropy)
    top_BR = advantages(rollout, settings).top_entropy_BR
    np.testing.assert_allclose(grad(logp, top_BR), [[0, -1 / 3, -1 / 3]], atol=1e-6)
    with pytest.raises(ValueError, match="top_entropy_BR is None; the algorithm needs it"):
        jax.eval_shape(value, logp)


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"ppo"}))
def test_no_old_policy_means_a_ratio_of_one(name):
    logp = jnp.array([[-1.0, -2.0, -3.0]])
    settings = GroupSettings(importance="truncate", importance_cap=1.5)
    how = {"advantage_BR": jnp.array([[1.0, -2.0, 0.5]]), "behaviour_logp_BR": logp - 0.1}

    def value(x, old_BR):
        return loss_of(name, settings, x, {**how, "old_logp_BR": old_BR})[0]

    # One program of each: what None stands for is the policy itself, without a gradient.
    absent = jax.value_and_grad(lambda x: value(x, None))(logp)
    given = jax.value_and_grad(lambda x: value(x, jax.lax.stop_gradient(x)))(logp)
    for got, want in zip(absent, given, strict=True):
        np.testing.assert_array_equal(got, want)
    assert np.all(absent[1] != 0)
    # Ratio e^−1 and weight 1.5 (of e^1.1): another old policy is another loss.
    assert abs(float(value(logp, logp + 1.0)) - float(absent[0])) > 0.01


@pytest.mark.parametrize("name", ["reward_BR", "value_BR", "end_value_B", "old_logp_BR",
                                  "ref_logp_BR"])  # fmt: skip
def test_ppo_needs_its_scores(name):
    given = rollout(old_logp_BR=ONES, ref_logp_BR=ONES)
    ppo_advantages(given, PPOSettings())
    with pytest.raises(ValueError, match=f"{name} is None; the algorithm needs it"):
        ppo_advantages(given.replace(**{name: None}), PPOSettings())


def test_group_methods_need_what_their_settings_ask_for():
    batch = {"advantage_BR": ONES, "old_logp_BR": -ONES}
    with pytest.raises(ValueError, match="ref_logp_BR is None; the algorithm needs it"):
        loss_of("bnpo", GroupSettings(beta=0.1), -ONES, batch)
    given = scored(reward_PG=jnp.zeros((1, 1)), response_mask_BR=ONES)
    with pytest.raises(ValueError, match="entropy_BR is None; the algorithm needs it"):
        group_advantages(given, GroupSettings(top_entropy=0.5))


def test_kl_and_entropy_are_added_to_the_loss():
    # l = log π − log π_ref = .5: k3 = e^−.5 − 1 + .5 = .10653.
    logp = np.full((1, 3), -1.0, np.float32)
    batch = {"advantage_BR": 0 * ONES, "ref_logp_BR": logp - 0.5}
    settings = GroupSettings(beta=0.2, entropy_coef=0.1)
    value, metrics = loss_of("bnpo", settings, logp, batch, jnp.full((1, 3), 2.0))
    np.testing.assert_allclose(value, 0.2 * 0.10653 - 0.1 * 2.0, atol=1e-5)
    np.testing.assert_allclose(metrics["kl"], 0.10653, atol=1e-5)


def test_the_unbiased_kl_reaches_the_loss():
    # ρ = e^.2, l = .5: ρ·k3 = 1.221403·.106531 = .130117 (test_ppo.py), times β = .2.
    logp = np.full((1, 3), -1.0, np.float32)
    batch = {"advantage_BR": 0 * ONES, "ref_logp_BR": logp - 0.5, "old_logp_BR": logp - 0.2}
    value, metrics = loss_of("bnpo", GroupSettings(beta=0.2, kl="unbiased"), logp, batch)
    np.testing.assert_allclose(value, 0.2 * 0.130117, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], 0.130117, rtol=1e-5)


def test_dr_grpo_divides_by_the_longest_answer_allowed():
    logp = np.full((1, 3), -1.0, np.float32)
    settings = GroupSettings(importance="none")
    plain, _ = loss_of("dr_grpo", settings, logp, {"advantage_BR": ONES})
    filled, _ = loss_of("dr_grpo", settings.at_length(12), logp, {"advantage_BR": ONES})
    np.testing.assert_allclose([plain, filled], [-3 / 3, -3 / 12])
    assert settings.at_length(12).at_length(99).clip.max_completion_length == 12


# --- PPO ------------------------------------------------------------------------------------------


def rollout(**changes):
    base = {
        "reward_BR": jnp.array([[0.0, 0.0, 1.0]]),
        "value_BR": jnp.array([[0.5, 0.6, 0.8]]),
        "end_value_B": jnp.array([0.4]),
        "ended_B": jnp.array([True]),
        "response_mask_BR": jnp.ones((1, 3)),
    }
    return scored(**{**base, **changes})


@pytest.mark.parametrize(
    "lam, want", [(1.0, [0.5, 0.4, 0.2]), (0.0, [0.1, 0.2, 0.2]), (0.95, [0.4705, 0.39, 0.2])]
)
def test_ppo_advantages_by_hand(lam, want):
    settings = PPOSettings(lam=lam, kl_coef=0.0, whiten=False)
    arrays, metrics = ppo_advantages(rollout(), settings)
    np.testing.assert_allclose(arrays.advantage_BR[0], want, atol=1e-6)
    # Returns are A + V.
    np.testing.assert_allclose(arrays.return_BR[0], np.add(want, [0.5, 0.6, 0.8]), atol=1e-6)
    assert "objective/kl" not in metrics
    np.testing.assert_allclose(metrics["objective/rlhf_reward"], 1.0)


def test_values_have_a_lambda_of_their_own():
    # The advantages of λ = 0 and, as targets, V + the advantages of λ = 1: returns of 1 each.
    settings = PPOSettings(lam=0.0, critic_lam=1.0, kl_coef=0.0, whiten=False)
    arrays, metrics = ppo_advantages(rollout(), settings)
    np.testing.assert_allclose(arrays.advantage_BR[0], [0.1, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(arrays.return_BR, ONES, atol=1e-6)
    # Without spread of the returns nothing is explained: 1 − (.25 + .16 + .04)/3/1e-8.
    assert float(metrics["critic/vf_explained_var"]) < -1e6
    # Nor by values of 0 of returns of 0: a warm-up of the values would end on a rollout all wrong.
    zeros = dict.fromkeys(("reward_BR", "value_BR"), 0 * ONES)
    _, metrics = ppo_advantages(rollout(**zeros), settings)
    assert float(metrics["critic/vf_explained_var"]) == 0.0
    # α = 2/3: λ = 1 − 1/(⅔·3) = .5: A = [.1 + .5·.3, .2 + .1, .2]; targets follow it by default.
    settings = PPOSettings(lam_alpha=2 / 3, kl_coef=0.0, whiten=False)
    arrays, _ = ppo_advantages(rollout(), settings)
    np.testing.assert_allclose(arrays.advantage_BR[0], [0.25, 0.3, 0.2], atol=1e-6)
    np.testing.assert_allclose(arrays.return_BR[0], [0.75, 0.9, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "changes, says",
    [({}, "critic_lam=1: targets"), ({"critic_lam": 1.0, "value_coef": 0.0}, "value_coef above 0")],
)
def test_a_warmup_that_would_train_on_values_or_nothing_is_refused(changes, says):
    with pytest.raises(ConfigError, match=f"value_warmup_steps=3 with .*{says}"):
        PPOSettings(value_warmup_steps=3, **changes)


def test_ppo_advantages_with_dense_rewards_kl_and_a_truncated_answer():
    # β = .1; log π − log π_ref = [1, 0, −1] makes r = [−.2, .5, .1] − [.1, 0, −.1] = [−.3, .5, .2].
    # Truncated: V after the end is .4. γ = 1, λ = .5, V = [.5, .6, .8]:
    # δ = [−.3+.6−.5, .5+.8−.6, .2+.4−.8] = [−.2, .7, −.2]
    # A_3 = −.2; A_2 = .7 − .1 = .6; A_1 = −.2 + .3 = .1
    given = rollout(
        reward_BR=jnp.array([[-0.2, 0.5, 0.1]]),
        ended_B=jnp.array([False]),
        old_logp_BR=jnp.array([[-1.0, -2.0, -3.0]]),
        ref_logp_BR=jnp.array([[-2.0, -2.0, -2.0]]),
    )
    settings = PPOSettings(lam=0.5, kl_coef=0.1, whiten=False)
    arrays, metrics = ppo_advantages(given, settings)
    np.testing.assert_allclose(arrays.advantage_BR[0], [0.1, 0.6, -0.2], atol=1e-6)
    np.testing.assert_allclose(arrays.return_BR[0], [0.6, 1.2, 0.6], atol=1e-6)
    np.testing.assert_allclose(metrics["objective/kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(metrics["objective/rlhf_reward"], 0.4, atol=1e-6)
    # Ended, the same answer has no value after it: δ_3 = .2 − .8 = −.6.
    ended, _ = ppo_advantages(given.replace(ended_B=jnp.array([True])), settings)
    np.testing.assert_allclose(ended.advantage_BR[0, 2], -0.6, atol=1e-6)


def test_whitening_touches_advantages_not_returns():
    plain, _ = ppo_advantages(rollout(), PPOSettings(kl_coef=0.0, whiten=False))
    white, _ = ppo_advantages(rollout(), PPOSettings(kl_coef=0.0))
    x = np.asarray(plain.advantage_BR)
    np.testing.assert_allclose(white.advantage_BR, (x - x.mean()) / x.std(), atol=1e-5)
    np.testing.assert_array_equal(white.return_BR, plain.return_BR)


def test_ppo_loss_by_hand():
    # ρ = [1.5, 1, .5] with A = [1, 2, −1], ε = .2: −min(ρA, clip(ρ)A) = [−1.2, −2, .8], mean −.8.
    # V = [1, 0, 0], old 0, R = [1, 1, 0], ε_v = .2: V clipped to [.2, 0, 0];
    # ½max: [½·.64, ½·1, 0], mean .82/3.
    scores = {
        "logp_BR": jnp.log(jnp.array([[1.5, 1.0, 0.5]])) - 1.0,
        "entropy_BR": jnp.full((1, 3), 2.0),
        "value_BR": jnp.array([[1.0, 0.0, 0.0]]),
    }
    batch = policy_batch(
        loss_mask_BR=jnp.ones((1, 3)),
        old_logp_BR=jnp.full((1, 3), -1.0),
        advantage_BR=jnp.array([[1.0, 2.0, -1.0]]),
        old_value_BR=jnp.zeros((1, 3)),
        return_BR=jnp.array([[1.0, 1.0, 0.0]]),
    )
    settings = PPOSettings(value_coef=0.5, entropy_coef=0.1)
    value, metrics = ppo_loss(scores, batch, normaliser(batch.loss_mask_BR), settings)
    np.testing.assert_allclose(metrics["loss/policy_avg"], -0.8, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/value_avg"], 0.82 / 3, atol=1e-6)
    np.testing.assert_allclose(value, -0.8 + 0.5 * 0.82 / 3 - 0.1 * 2.0, atol=1e-6)
    np.testing.assert_allclose(metrics["val/ratio"], 1.0, atol=1e-6)
    # Both ends of the clip hold: ρ = 1.5 with A > 0, ρ = .5 with A < 0.
    np.testing.assert_allclose(metrics["policy/clipfrac_avg"], 2 / 3, atol=1e-6)


@pytest.mark.parametrize("name", ["old_logp_BR", "old_value_BR", "return_BR"])
def test_the_loss_of_ppo_needs_what_its_advantages_made(name):
    arrays = dict.fromkeys(("old_logp_BR", "advantage_BR", "old_value_BR", "return_BR"), ONES)
    scores = {"logp_BR": -ONES, "value_BR": ONES, "entropy_BR": ONES}
    ppo_loss(scores, policy_batch(loss_mask_BR=ONES, **arrays), normaliser(ONES), PPOSettings())
    del arrays[name]
    with pytest.raises(ValueError, match=f"{name} is None; the algorithm needs it"):
        ppo_loss(scores, policy_batch(loss_mask_BR=ONES, **arrays), normaliser(ONES), PPOSettings())


def test_value_clip_of_zero_is_off_rather_than_pinning_the_value():
    mask, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    batch = policy_batch(
        loss_mask_BR=mask,
        old_logp_BR=zero,
        advantage_BR=zero,
        old_value_BR=zero,
        return_BR=2 * mask,
    )
    settings = PPOSettings(value_clip=0.0, value_coef=1.0)

    def loss(value):
        scores = {"logp_BR": zero, "entropy_BR": zero, "value_BR": value * mask}
        return ppo_loss(scores, batch, normaliser(mask), settings)[0]

    # ½(V−R)² at V=1, R=2: loss .5, slope V−R = −1, however far V is from its old value 0.
    value, slope = jax.jit(jax.value_and_grad(loss))(1.0)
    assert float(value) == pytest.approx(0.5)
    assert float(slope) == pytest.approx(-1.0)
