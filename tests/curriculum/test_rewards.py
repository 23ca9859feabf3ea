"""What an arm is worth: each term by hand, and that each changes what is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.curriculum import rewards
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.kernels.curriculum import boltzmann

NAN = np.nan
UPDATE = jax.jit(rewards.update, static_argnums=2)


def step(state, signal, mastery, drawn=None, **settings):
    """One update; nothing drawn from an arm whose signal and mastery are None."""
    signal, mastery = np.array(signal, np.float32), np.array(mastery, np.float32)
    drawn = np.isfinite(mastery).astype(np.int32) if drawn is None else np.array(drawn, np.int32)
    how = CurriculumSettings(**{"momentum": 0.5, **settings})
    return UPDATE(state, rewards.Measured(drawn, signal, mastery), how)


def test_the_bounded_gap():
    np.testing.assert_allclose(
        rewards.bounded_gap(np.array([0.0, 0.5, 1e9])), [0, 0.39347, 1], rtol=1e-5
    )
    assert rewards.bounded_gap(-1e-7) == 0


def test_means_by_arm_leave_out_what_was_not_measured():
    arm = np.array([0, 0, 2, 2, 2])
    found = rewards.measure(arm, [0.2, 0.4, NAN, 1.0, np.inf], [NAN, NAN, 0, 1, 0.5], 4)
    assert found.drawn_A.tolist() == [2, 0, 3, 0]
    np.testing.assert_allclose(found.signal_A, [0.3, NAN, 1.0, NAN], rtol=1e-6)
    np.testing.assert_allclose(found.mastery_A, [NAN, NAN, 0.5, NAN])


def test_values_counts_and_mastery_by_hand():
    state = rewards.fresh(2, initial_q=0.0)
    state = step(state, [0.8, NAN], [0.5, NAN], drawn=[3, 0])
    np.testing.assert_allclose(state["q"], [0.4, 0.0])
    state = step(state, [0.4, 0.6], [0.9, 0.1], drawn=[1, 3])
    np.testing.assert_allclose(state["q"], [0.4, 0.3])
    assert state["count"].tolist() == [4, 3] and state["seen"].tolist() == [True, True]
    # .5·.5 + .5·.9; the second arm is seen for the first time
    np.testing.assert_allclose(state["mastery"], [0.7, 0.1])
    np.testing.assert_allclose(state["share"], [0.25, 0.75])
    assert {name: str(x.dtype) for name, x in state.items()} == {
        name: str(x.dtype) for name, x in rewards.fresh(2, 0.0).items()
    }


def test_nothing_measured_and_nothing_drawn_change_no_value():
    state = step(rewards.fresh(2, 0.1), [0.5, 0.5], [0.2, 0.3])
    after = step(state, [NAN, NAN], [NAN, NAN], drawn=[2, 0])
    for name in ("q", "mastery", "best", "credit", "exposure"):
        np.testing.assert_array_equal(after[name], state[name], err_msg=name)
    assert after["count"].tolist() == [3, 1]
    assert all(np.all(np.isfinite(x)) for x in after.values())


def test_retention_brings_back_what_was_learnt_and_is_lost():
    """Arm 0 was learnt and falls; arm 1 never was, and falls as far."""

    def shares(weight):
        state = rewards.fresh(2, 0.0)
        for mastery in ([0.8, 0.4], [0.8, 0.4], [0.2, 0.0], [0.2, 0.0]):
            state = step(state, [0.3, 0.3], mastery, retention_weight=weight)
        return boltzmann(state["q"], jnp.ones(2, bool), temperature=0.2), state

    without, _ = shares(0.0)
    np.testing.assert_allclose(without, [0.5, 0.5], atol=1e-6)
    with_it, state = shares(1.0)
    assert with_it[0] > 0.75
    # moving mastery of arm 0: .8, .8, .5, .35; forgotten .3 then .45; Q: 0, .15, .225, with
    # the signal's .3: .15, .225, .2625+.15, .28125+.3
    np.testing.assert_allclose(state["mastery"], [0.35, 0.1], rtol=1e-6)
    np.testing.assert_allclose(state["q"], [0.58125, 0.28125], rtol=1e-5)


def world(weight, transfer, steps=200, seed=0):
    """Arm 0's problems lift `transfer` on all others, arm 1's only on itself; two stand still."""
    draws = np.random.default_rng(seed)
    level, state = np.full(4, 0.2), rewards.fresh(4, 0.0)
    for _ in range(steps):
        share = draws.multinomial(8, [0.25] * 4) / 8
        mastery = np.where(share > 0, level, NAN)
        signal = np.where(share > 0, 0.3, NAN)
        drawn = (share * 8).astype(np.int32)
        state = step(state, signal, mastery, drawn, transfer_weight=weight, momentum=0.9)
        level[1:] += transfer * 0.02 * share[0] * (1 - level[1:])
        level[1] += 0.02 * share[1] * (1 - level[1])
    return np.asarray(state["q"]), state


def test_transfer_favours_the_arm_that_lifts_others():
    still, _ = world(0.0, 1.0)
    np.testing.assert_allclose(still, [0.3] * 4, atol=1e-5)
    wins, alone = 0, 0
    for seed in range(5):
        q, _ = world(20.0, 1.0, seed=seed)
        wins += int(np.argmax(q) == 0)
        # Nothing is lifted by arm 0 then: it has no advantage over the arms that stand still.
        q, _ = world(20.0, 0.0, seed=seed)
        alone += int(np.argmax(q) == 0)
    assert wins == 5 and alone <= 3, (wins, alone)


def test_transfer_by_hand():
    state = step(rewards.fresh(3, 0.0), [0, 0, 0], [0.2, 0.2, NAN], drawn=[3, 1, 0])
    # Both move by +.4 and +.2 after a draw of shares ¾, ¼: arm 0 is credited with arm 1's .2.
    state = step(state, [0, 0, 0], [0.6, 0.4, NAN], drawn=[1, 1, 0], transfer_weight=1.0)
    np.testing.assert_allclose(state["credit"], [0.75 * 0.2, 0.25 * 0.4, 0], rtol=1e-6)
    np.testing.assert_allclose(state["exposure"], [0.75, 0.25, 0])
    np.testing.assert_allclose(state["q"], [0.5 * 0.2, 0.5 * 0.4, 0], rtol=1e-5)


def test_progress_is_an_arms_own_gain():
    state = rewards.fresh(2, 0.0)
    for mastery in ([0.2, 0.2], [0.6, 0.2]):
        state = step(state, [0.0, 0.0], mastery, progress_weight=1.0, signal_weight=0.0)
    np.testing.assert_allclose(state["q"], [0.5 * 0.4, 0.0], rtol=1e-6)


def test_a_curriculum_that_values_nothing_is_refused():
    with pytest.raises(ConfigError, match="some weight"):
        CurriculumSettings(method="self_evolving", signal_weight=0.0)
    CurriculumSettings(method="self_evolving", signal_weight=0.0, progress_weight=0.5)
