"""Token credit, the student's own log-probability and the control as a step joins them, by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError
from distill_jax.core.unread import find
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rewards import combine
from distill_jax.rewards.process import ProcessSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.stages.rl_prepare import prepare
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.losses import PolicyScores

# Two prompts of two answers: three and two tokens, then one and two. log π_T and log π_S of each.
MASK = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]], np.float32)
TEACHER = np.array([[-1, -2, -3], [-4, -1, 9], [-2, 9, 9], [-1, -12, 9]], np.float32)
STUDENT = np.array([[-2, -2, -1], [-1, -2, 0], [-2, 0, 0], [-3, -1, 0]], np.float32)
CORRECT = np.array([1, 0, 0, 0], np.float32)
D = np.where(MASK > 0, TEACHER - STUDENT, 0)  # [1, 0, −2], [−3, 1], [0], [2, −11]
TOKEN: dict[str, Any] = {"credit": "token", "normaliser": "none", "token_clip": 0.0}


def prepared(
    algorithm: str = "bnpo", how: Any = None, samples: int = 2, step: int = 0, **changes: Any
) -> Any:
    """((policy batch, record), reward state, metrics) of the rollout above."""
    values = ALGORITHMS[algorithm].uses_values
    rewards = RewardSettings(**{"intrinsic_weight": 0.5, **changes})
    zero = np.zeros(MASK.shape, np.int32)
    ended_B = np.array([True, True, True, False])
    batch = RolloutBatch(zero, zero[:, 0], MASK.sum(1), MASK, zero, ended_B, jnp.asarray(STUDENT))
    zero_B = jnp.zeros(4)
    teacher = TeacherScores(jnp.asarray(TEACHER), jnp.zeros(MASK.shape), zero_B)
    old = PolicyScores(jnp.asarray(STUDENT), None, jnp.zeros(MASK.shape), zero_B)
    control = (rng.run_key(0), np.int32(step)) if rewards.control != "none" else None
    terms = {"correctness": jnp.asarray(CORRECT)}
    given = None if rewards.exact else teacher  # then no scores are made
    arrays = (batch, terms, MASK, given, old if values else None, None, None)
    return prepare(
        combine.fresh_state(), *arrays, control=control, rewards=rewards, bonus=ProcessSettings(),
        algorithm=ALGORITHMS[algorithm],
        settings=how or (PPOSettings(kl_coef=0.0) if values else GroupSettings()),
        samples=samples, max_new_tokens=3,
    )  # fmt: skip


def advantage(*args: Any, **changes: Any) -> np.ndarray:
    return np.asarray(prepared(*args, **changes)[0][0].advantages.advantage_BR)


# Correctness alone: [1, 0] → ±.70711 (ddof 1), [0, 0] → 0.
VERDICT = np.array([0.70711, -0.70711, 0, 0])[:, None] * MASK


def test_distillation_by_hand() -> None:
    # w_c 2: the group's advantage is divided by a spread, so the weight comes back. w_i ½.
    found = advantage(correctness_weight=2.0, student_weight=1.0, **TOKEN)
    np.testing.assert_allclose(found, 2 * VERDICT + 0.5 * D, atol=1e-4)
    # Without the division the weight is in it: 2·(±½).
    plain = advantage(
        "bnpo", GroupSettings(scale="none"), correctness_weight=2.0, student_weight=1.0, **TOKEN
    )
    raw = np.array([1.0, -1.0, 0, 0])[:, None] * MASK
    np.testing.assert_allclose(plain, raw + 0.5 * D, atol=1e-5)


def test_exact_credit_leaves_the_other_terms_alone() -> None:
    how = {"credit": "exact", "student_weight": 1.0, "correctness_weight": 2.0}
    (policy, record), state, metrics = prepared(**how)
    # As with token credit: the weight comes back where the group's spread took it away.
    np.testing.assert_allclose(policy.advantages.advantage_BR, 2 * VERDICT, atol=1e-4)
    np.testing.assert_array_equal(record["reward_B"], 2 * CORRECT)
    assert float(metrics["reward"]) == 0.5 and float(metrics["frac_reward_zero_std"]) == 0.5
    assert not any(name.startswith(("rewards/intrinsic", "teacher/")) for name in metrics)
    assert not any(np.any(np.asarray(x)) for x in state["normaliser"].values())
    (policy, _), _, metrics = prepared(samples=1, **{**how, "correctness_weight": 0.0})
    assert not np.any(np.asarray(policy.advantages.advantage_BR))
    assert "frac_reward_zero_std" not in metrics


@pytest.mark.parametrize("how", [{"credit": "token"}, {}])
def test_a_student_that_is_its_own_teacher_is_not_paid_for_rounding(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Divided by its own root mean square, any noise would be as large as a teacher's signal.
    noise = np.array([[1, -2, 3], [2, -1, 0], [1, 0, 0], [-3, 1, 0]], np.float32)
    monkeypatch.setattr(f"{__name__}.TEACHER", STUDENT + np.float32(1e-6) * noise)
    plain = {"correctness_weight": 1.0, "intrinsic_weight": 0.0}
    found = advantage("bnpo", GroupSettings(scale="none"), student_weight=1.0, **how)
    wanted = advantage("bnpo", GroupSettings(scale="none"), **plain)
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_return_to_go_by_hand() -> None:
    # s=0, γ=1: [−6, −5, −3], [−5, −1], [−2], [−13, −12]; less the other's at the same token, and
    # where it has none, its mean: row 0's third −3 − (−5−1)/2; row 3's second −12 − (−2).
    found = advantage(correctness_weight=0.0, discount=1.0, **TOKEN)
    want = np.array([[-1, -4, 0], [1, 4, 0], [11, 0, 0], [-11, -10, 0]])
    np.testing.assert_allclose(found, 0.5 * want, atol=1e-5)
    bare = advantage(correctness_weight=0.0, discount=0.5, token_baseline="none", **TOKEN)
    # −3; −2 − 1.5; −1 − 1.75. −1; −4 − .5.
    want = np.array([[-2.75, -3.5, -3], [-4.5, -1, 0], [-2, 0, 0], [-7, -12, 0]])
    np.testing.assert_allclose(bare, 0.5 * want, atol=1e-5)


def test_clips_scale_and_figures_by_hand() -> None:
    # d cut at ±10: −11 → −10. Σd² = 1+0+4+9+1+0+4+100 = 119 over 8 tokens: rms 3.8568.
    how = {"correctness_weight": 0.0, "student_weight": 1.0, "credit": "token", "clip": 2.0}
    (policy, record), state, metrics = prepared(**how)
    scale = np.sqrt(119 / 8)
    scaled = np.clip(np.clip(D, -10, 10) / scale, -2, 2)  # −10/3.8568 = −2.59 → −2
    np.testing.assert_allclose(policy.advantages.advantage_BR, 0.5 * scaled, atol=1e-5)
    mean = (1 + 0 - 2 - 3 + 1 + 0 + 2 - 10) / 8
    want = {
        "rewards/dense/mean": mean,
        "rewards/dense/std": np.sqrt(119 / 8 - mean**2),
        "rewards/dense/clipped": 1 / 8,
        "rewards/dense/advantage": 0.5 * np.abs(scaled).sum() / 8,
        "rewards/dense/advantage_clipped": 1 / 8,
        "teacher/mass": np.exp(TEACHER[MASK > 0]).mean(),
        "teacher/mass_at_end": np.exp([-3, -1, -2]).mean(),  # the fourth was cut off
        "rewards/intrinsic/scale": scale,
        "frac_reward_zero_std": 0.0,  # no verdict pays, but the tokens' rewards differ
        # Of the answers as shown: the mean over a sequence's tokens, unclipped.
        "rewards/intrinsic/mean": np.mean([-1 / 3, -1, 0, -4.5]),
    }
    for name, value in want.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(record["reward_B"], 0.5 * scaled.sum(1) / MASK.sum(1), atol=1e-5)


def test_the_dense_part_stays_within_its_weight_times_clip() -> None:
    found = advantage(student_weight=1.0, credit="token", token_clip=0.0, discount=1.0, clip=1.0)
    verdict_of = np.where(MASK > 0, found - VERDICT, 0)
    assert np.abs(verdict_of).max() <= 0.5 + 1e-4 and np.abs(verdict_of).max() > 0.45


def test_token_credit_without_a_teacher_is_the_verdict() -> None:
    off = RewardSettings(credit="token", intrinsic_weight=0.0)
    terms = {"correctness": jnp.asarray(CORRECT)}
    how: dict[str, Any] = {"dense": False, "samples": 2}
    made = combine.join(off, combine.fresh_state(), terms, None, MASK, CORRECT > 0, **how)
    assert made.token_BR is None and made.compared_B.tolist() == CORRECT.tolist()
    assert {one.name for one in find(off)} == {"credit"}  # and the run refuses the setting


def test_one_sample_a_prompt() -> None:
    (policy, _), _, metrics = prepared(
        correctness_weight=0.0, student_weight=1.0, samples=1, **TOKEN
    )
    np.testing.assert_allclose(policy.advantages.advantage_BR, 0.5 * D, atol=1e-5)
    assert "frac_reward_zero_std" not in metrics  # nothing to compare is no lack of signal


def test_bonuses_are_bounded_by_the_verdicts_alone() -> None:
    # Term length gives right answers a bonus from the sequence's advantages; the dense part comes
    # on top of both, without entering the bound.
    how = {"student_weight": 1.0, "length_weight": 1.0, **TOKEN}
    with pytest.raises(ConfigError, match="terms that pay up to inf"):
        RewardSettings(**{**how, "credit": "sequence"}, intrinsic_weight=0.5)
    found = prepared("dapo", **how)
    assert float(found[2]["length/reversed"]) == 0.0
    without = prepared("dapo", **{**how, "intrinsic_weight": 1e-9})
    np.testing.assert_allclose(
        found[0][0].advantages.advantage_BR - without[0][0].advantages.advantage_BR,
        0.5 * D, atol=1e-5,
    )  # fmt: skip


# --- the student's own log-probability elsewhere ----------------------------------------------


def test_student_weight_in_a_sequence_reward() -> None:
    # Sums of D: −1, −2, 0, −9; the group's means −1.5 and −4.5.
    found = advantage(
        "bnpo", GroupSettings(scale="none"), correctness_weight=0.0, student_weight=1.0,
        sequence="sum", normaliser="none",
    )  # fmt: skip
    want = np.array([0.5, -0.5, 4.5, -4.5])[:, None] * MASK
    np.testing.assert_allclose(found, 0.5 * want, atol=1e-5)


def test_student_weight_in_ppo() -> None:
    # λ = γ = 1 and values of 0: the advantage is the return to go of ½·D, verdicts last.
    how = PPOSettings(kl_coef=0.0, lam=1.0, whiten=False)
    found = advantage("ppo", how, student_weight=1.0, sequence="sum", normaliser="none")
    reward = 0.5 * D
    reward[0, 2] += 1.0
    want = np.where(MASK > 0, np.cumsum(reward[:, ::-1], axis=1)[:, ::-1], 0)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_alpha_scales_both() -> None:
    teacher = TeacherScores(jnp.asarray(TEACHER), jnp.zeros(MASK.shape), jnp.zeros(4))
    settings = RewardSettings(alpha=2.0, student_weight=1.0)
    found = combine.intrinsic_BR(settings, teacher, MASK, np.ones(4, bool), jnp.asarray(STUDENT))
    np.testing.assert_allclose(found, np.where(MASK > 0, TEACHER - 2 * STUDENT, 0))


# --- control, aggregation ---------------------------------------------------------------------


def test_permuted_rewards_leave_verdicts_and_level() -> None:
    how = {"student_weight": 1.0, "control": "permuted", **TOKEN}
    # One cycle of two answers: they exchange their rewards at every step.
    found = advantage(**how) - VERDICT
    mean = [(-3 + 1) / 2, 2 - 11]
    want = np.array([[-3, 1, mean[0]], [1, 0, 0], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found, 0.5 * want, atol=1e-4)
    # With a baseline, and for sequences, exchanged at some steps and not at others.
    plain = {"normaliser": "none", "correctness_weight": 0.0}
    for kind in (plain, {**plain, "credit": "token", "token_baseline": "leave_one_out"}):
        straight = advantage(**kind)
        steps = [advantage(step=step, control="permuted", **kind) for step in range(12)]
        same = [np.allclose(one, straight, atol=1e-5) for one in steps]
        assert any(same) and not all(same)
        again = advantage(step=3, control="permuted", **kind)
        assert np.array_equal(again, steps[3])


def test_terms_normalised_apart() -> None:
    # Correctness ±.70711, 0, 0. Intrinsic means −2, −2.5 and −2, −6.5: ±.70711 in both groups.
    # S = ±(1 + ½)·.70711, ±½·.70711: Σ² = 2.25 + .25 = 2.5, std √(2.5/3) = .91287.
    found = advantage(aggregation="gdpo", normaliser="none")
    want = np.array([1.0607, -1.0607, 0.35355, -0.35355]) / 0.91287
    np.testing.assert_allclose(found, want[:, None] * MASK, atol=1e-4)
    # With token credit the terms are correctness alone: Σ² = 1, std √⅓.
    token = advantage(aggregation="gdpo", student_weight=1.0, **TOKEN)
    np.testing.assert_allclose(token, VERDICT * np.sqrt(3) + 0.5 * D, atol=1e-4)


# --- settings ---------------------------------------------------------------------------------


def refused(match: str, **changes: Any) -> None:
    rewards = {name[9:]: changes.pop(name) for name in list(changes) if name[:9] == "rewards__"}
    with pytest.raises(ConfigError, match=match):
        RLSettings(**changes, rewards=RewardSettings(**rewards))


def test_what_does_not_go_together_is_refused() -> None:
    refused("credit=token with algorithm=ppo", algorithm="ppo", rewards__credit="token")
    refused("aggregation=gdpo with algorithm=ppo", algorithm="ppo", rewards__aggregation="gdpo")
    refused("form=raw with credit=token", rewards__credit="token", rewards__form="raw")
    refused(
        "aggregation=gdpo with length_weight", algorithm="dapo", rewards__aggregation="gdpo",
        rewards__length_weight=1.0, rewards__intrinsic_weight=0.0,
    )  # fmt: skip
    refused(
        "control=permuted with samples_per_prompt=1", algorithm="ppo", samples_per_prompt=1,
        rewards__control="permuted",
    )  # fmt: skip
    one: dict[str, Any] = {
        "samples_per_prompt": 1, "rewards__credit": "token", "rewards__student_weight": 1.0,
        "rewards__correctness_weight": 0.0,
    }  # fmt: skip
    names = [name[9:] for name in one if name[:9] == "rewards__"]
    good = RewardSettings(**{name: one[f"rewards__{name}"] for name in names})
    assert not good.compares and good.baseline_of_tokens == "none"
    RLSettings(samples_per_prompt=1, rewards=good)
    for change in (
        {"rewards__correctness_weight": 1.0}, {"rewards__student_weight": 0.0},
        {"rewards__discount": 0.5}, {"rewards__format_weight": 0.1},
        {"rewards__overlong_buffer": 8}, {"rewards__token_baseline": "leave_one_out"},
        {"rewards__credit": "sequence"}, {"dynamic_sampling": 1},
    ):  # fmt: skip
        refused("samples_per_prompt=1", **{**one, **change})


def test_settings_that_nothing_reads() -> None:
    given = RewardSettings(discount=0.5, token_clip=1.0)
    assert {one.name for one in find(given)} == {"discount", "token_clip"}
    off = RewardSettings(intrinsic_weight=0.0, student_weight=1.0, control="permuted")
    assert {one.name for one in find(off)} == {"student_weight", "control"}
