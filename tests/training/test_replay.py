"""Replay: which groups give their places to which, by hand and in a world that moves."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.unread import find
from distill_jax.training import replay
from distill_jax.training.batch import Advantages, PolicyBatch
from distill_jax.training.replay import KEY, ReplaySettings

G = 2


def batch(marks, rewards, lengths=None, *, T=6, R=4, reference=False):
    """(policy batch, response lengths, rewards): a group's tokens are its mark, prompts of 2."""
    rewards_PG = np.asarray(rewards, np.float32)
    groups, samples = rewards_PG.shape
    lengths_PG = np.full(rewards_PG.shape, R, np.int32) if lengths is None else np.array(lengths)
    mask_BR = (np.arange(R) < lengths_PG.reshape(-1, 1)).astype(np.float32)
    mark_B1 = np.repeat(np.asarray(marks, np.int32), samples)[:, None]
    advantage_B1 = (rewards_PG - rewards_PG.mean(1, keepdims=True)).reshape(-1, 1)
    logp_BR = np.float32(-0.1) * mark_B1.astype(np.float32) * mask_BR
    width_B1 = 2 + lengths_PG.reshape(-1, 1)
    policy = PolicyBatch(
        prompts_PS=None,
        tokens_BT=(mark_B1 * (np.arange(T) < width_B1)).astype(np.int32),
        prompt_len_B=np.full(groups * samples, 2, np.int32),
        targets_BR=(mark_B1 * mask_BR).astype(np.int32),
        loss_mask_BR=mask_BR,
        behaviour_logp_BR=logp_BR,
        old_logp_BR=np.float32(2) * logp_BR,
        ref_logp_BR=np.float32(3) * logp_BR if reference else None,
        advantages=Advantages((advantage_B1 * mask_BR).astype(np.float32)),
    )
    return policy, lengths_PG.reshape(-1).astype(np.int32), rewards_PG.reshape(-1)


def fresh(groups=3, *, T=6, R=4, samples=G, reference=False):
    made = replay.fresh(
        ReplaySettings(groups=groups), samples, T, R, reference=reference, top_entropy=False
    )
    return made[KEY]


@pytest.fixture(scope="module")
def mix():
    made = jax.jit(replay.mix, static_argnames=("samples", "max_age"))

    def call(buffer, given, step, *, max_age=8, seed=0, samples=G):
        key = jax.random.key(seed)
        return made(buffer, *given, key, np.int32(step), samples=samples, max_age=max_age)

    return call


def marks(policy):
    return np.asarray(policy.tokens_BT[::G, 0]).tolist()


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_off_it_holds_nothing():
    off = replay.fresh(ReplaySettings(), 4, 8, 8, reference=False, top_entropy=False)
    assert off == {}
    assert [one.name for one in find(ReplaySettings(max_age=2))] == ["max_age"]


def test_a_group_of_equal_rewards_gives_its_place_to_the_earlier_one(mix):
    first = batch([1, 2, 3], [[1, 0], [1, 1], [0, 0]], reference=True)
    out, buffer, metrics = mix(fresh(reference=True), first, 0)
    same(out, first[0])  # nothing was kept before: nothing is replaced, not even within the step
    assert float(metrics["replay/share"]) == 0 and int(metrics["replay/kept"]) == 1
    # Σ|Â|·σ = (.5 + .5)·.5
    np.testing.assert_allclose(buffer.score_N, [0.5, 0, 0])
    second = batch([4, 5, 6], [[0, 0], [0, 1], [1, 1]], [[3, 4], [4, 4], [1, 2]], reference=True)
    out, buffer, metrics = mix(buffer, second, 1)
    assert marks(out) == [1, 5, 6]  # one was kept: the first equal group's place alone
    wanted = jax.tree.map(np.copy, second[0])
    jax.tree.map(lambda now, earlier: now.__setitem__(slice(0, 2), earlier[:2]), wanted, first[0])
    same(out, wanted)
    assert float(metrics["replay/share"]) == pytest.approx(1 / 3)
    assert float(metrics["replay/age"]) == 1 and int(metrics["replay/kept"]) == 2
    # Prompts of 2; responses of 4, 4 (replayed), 4, 4, 1, 2.
    assert int(metrics["step_tokens"]) == 6 * 2 + 19
    assert int(metrics["step_response_tokens"]) == 19


def test_rewards_that_differ_more_stay_and_are_drawn_more_often(mix):
    given = batch([1, 2, 3, 4], [[1, 0], [0.1, 0], [2, 0], [1, 1]])
    buffer = mix(fresh(groups=2), given, 0)[1]
    # Scores 1²/2, .1²/2, 2²/2: the second has no place.
    np.testing.assert_allclose(buffer.score_N, [2.0, 0.5])
    equal = batch([9], [[1, 1]])
    drawn = [marks(mix(buffer, equal, 1, seed=seed)[0])[0] for seed in range(400)]
    assert drawn.count(3) / 400 == pytest.approx(0.8, abs=0.06)
    # Without a repeat: two places take both, a third stays as it was.
    out = mix(buffer, batch([7, 8, 9], [[1, 1], [0, 0], [1, 1]]), 1)[0]
    assert sorted(marks(out)[:2]) == [1, 3] and marks(out)[2] == 9


def test_a_kept_group_is_dropped_when_it_is_old(mix):
    buffer, equal = mix(fresh(), batch([1], [[1, 0]]), 0)[1], batch([9], [[1, 1]])
    for step, wanted, kept in ((1, 1, 1), (2, 1, 0), (3, 9, 0)):
        out, buffer, metrics = mix(buffer, equal, step, max_age=2)
        assert marks(out) == [wanted] and int(metrics["replay/kept"]) == kept


@pytest.mark.parametrize(
    ("widths", "fits"),
    [
        ({"T": 6, "R": 4}, True),
        ({"T": 8, "R": 6}, True),
        ({"T": 5, "R": 6}, False),  # prompt and response are 6 tokens
        ({"T": 8, "R": 3}, False),  # the response is 4
    ],
)
def test_widths(mix, widths, fits):
    long = batch([1], [[1, 0]], [[4, 2]])
    buffer = mix(fresh(), long, 0)[1]
    T, R = widths["T"], widths["R"]
    lengths = [[min(R, T - 2)] * 2]
    out = mix(buffer, batch([9], [[1, 1]], lengths, **widths), 1)[0]
    assert marks(out) == [1 if fits else 9]
    if fits:  # padded where it is narrower
        same(out, batch([1], [[1, 0]], [[4, 2]], **widths)[0])
    # Nor is a group kept by a buffer that it does not fit into.
    assert int(mix(fresh(**widths), long, 0)[2]["replay/kept"]) == fits
    # What counts is the longest row without its padding.
    short = batch([1], [[1, 0]], [[3, 2]])
    assert int(mix(fresh(T=5, R=3), short, 0)[2]["replay/kept"]) == 1


def test_of_equal_scores_the_newest_stay(mix):
    buffer = fresh(groups=2)
    for step in range(3):
        buffer = mix(buffer, batch([10 + step, 20 + step], [[1, 0], [0, 1]]), step)[1]
    assert np.asarray(buffer.step_N).tolist() == [2, 2]


def test_what_is_masked_is_no_advantage(mix):
    policy, lengths, rewards = batch([1, 2], [[1, 0], [1, 0]])
    masked = policy.loss_mask_BR.copy()
    masked[:2] = 0  # both completions cut off
    found = mix(fresh(), (dataclasses.replace(policy, loss_mask_BR=masked), lengths, rewards), 0)
    np.testing.assert_allclose(found[1].score_N, [0.5, 0, 0])
    assert np.asarray(found[1].rows.tokens_BT)[0, 0, 0] == 2
    # The mean is over what is trained: short responses count as much as long ones.
    np.testing.assert_allclose(mix(fresh(), batch([1], [[1, 0]], [[1, 3]]), 0)[1].score_N[0], 0.5)


def rates(step):
    """Mastered arms and hopeless ones around one that teaches: the second, later the fourth."""
    return np.array([0.98, 0.5, 0.02, 0.02] if step < 40 else [1.0, 0.98, 0.98, 0.5])


def test_in_a_world_that_moves_more_groups_teach_and_old_ones_go(mix):
    samples, wasted, replayed, late = 4, [], [], []
    buffer = fresh(groups=12, T=3, R=1, samples=samples)
    rng = np.random.default_rng(0)
    for step in range(80):
        arms = np.repeat(np.arange(4), 4)
        rewards = rng.random((16, samples)) < rates(step)[arms][:, None]
        given = batch(arms + 1, rewards, T=3, R=1)
        out, buffer, metrics = mix(buffer, given, step, max_age=4, seed=step, samples=samples)
        equal_P = (rewards.min(1) == rewards.max(1)).mean()
        wasted.append(equal_P)
        replayed.append(equal_P - float(metrics["replay/share"]))
        assert float(metrics["replay/age"]) <= 4
        if step > 44:  # all of the first world's groups are too old
            arm_P = np.asarray(out.tokens_BT)[::samples, 0] - 1
            late.append((arm_P == 3).mean())
    # 12 of 16 groups and some of the others teach nothing; with replay a fifth does.
    assert np.mean(wasted) > 0.7 and np.mean(replayed[4:]) < 0.25
    assert np.mean(late) > 0.6  # a quarter is drawn there
