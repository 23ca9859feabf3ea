"""Curricula by verdicts: draws without repeats, state by hand, and a simulated policy that moves.

pytest tests/curriculum/test_verdicts.py -q -s        # prints the shares of informative groups
"""

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.curriculum import verdicts
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.methods import CURRICULA
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.stages.distill_settings import DistillSettings
from tests.curriculum.problems import levels

BY_VERDICTS = [name for name, one in CURRICULA.items() if one.place]
N, P, G, STEPS, SEEDS = 200, 16, 8, 120, 4
NAN = np.nan


def make(method="posterior", rows=None, batch=4, samples=8, rounds=1, seed=0, **settings):
    how = CurriculumSettings(method=method, **settings)
    rows = levels(6, 6) if rows is None else rows
    return Curriculum(
        how, rows, seed=seed, batch=batch, samples=samples, steps=STEPS, rounds=rounds
    )


def test_the_state_by_hand():
    one = make(memory=0.5)
    nan = np.full(4, NAN)
    state = one.update(one.fresh(), np.array([0, 3, 5, 7]), nan, np.array([1, 0.25, 0, NAN]))
    # 8 samples each: 8, 2 and 0 right; the last was not measured.
    assert state["right"].tolist() == [8, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
    assert state["wrong"].tolist() == [0, 0, 0, 6, 0, 8, 0, 0, 0, 0, 0, 0]
    state = one.update(state, np.array([3, 0]), nan[:2], np.array([0.5, NAN]))
    # Twice in one step, as a small pool gives it: older verdicts fade once.
    state = one.update(state, np.array([5, 5]), nan[:2], np.array([0.5, 1]))
    assert [state["right"][n] for n in (0, 3, 5)] == [8, 5, 12]
    assert [state["wrong"][n] for n in (0, 3, 5)] == [0, 7, 8]
    assert {str(state[name].dtype) for name in ("right", "wrong")} == {"float32"}
    # Means: 9/10 is easy; 6/14 and 13/22 are normal; the others have none.
    found = verdicts.metrics({name: np.asarray(x) for name, x in state.items()}, one.arms.kept)
    assert found["curriculum/seen"] == 3 / 12 and found["curriculum/easy"] == 1 / 12
    assert found["curriculum/hard"] == 0


@pytest.mark.parametrize("method", BY_VERDICTS)
def test_no_problem_repeats_in_a_step(method):
    one = make(method, rows=levels(without=10), rounds=3)
    for step in range(20):
        ids = np.array([], np.int64)
        for _ in range(3):
            ids = np.concatenate([ids, one.problem_ids(one.fresh(), step, ids)])
        # Ten problems in draws of four: two are drawn twice, at the end.
        assert len(set(ids[:10].tolist())) == 10 and len(set(ids[8:].tolist())) == 4
    assert one.problem_ids(one.fresh(), 0).tolist() != one.problem_ids(one.fresh(), 1).tolist()


def test_dropped_problems_are_never_drawn_and_too_few_are_refused():
    rows = levels(5, without=20)
    one = make(rows=rows, unlevelled="drop")
    drawn = {n for step in range(20) for n in one.problem_ids(one.fresh(), step).tolist()}
    assert drawn == set(range(5)) and len(one.fresh()["right"]) == 25
    with pytest.raises(DataError, match="curriculum pools: 5 problems; wanted: at least 6"):
        make("pools", rows=rows, unlevelled="drop", batch=6)


def test_figures_of_arms_are_those_of_the_draw():
    one = make(rows=levels(20, 10))
    ids = np.array([0, 1, 2, 3])
    state = one.update(one.fresh(), ids, np.full(4, 0.5), np.full(4, 0.5))
    found = one.metrics(one.fresh(), state, 0)
    level_1 = float(np.mean(one.arms.arm_N[ids] == 0))
    assert found["curriculum/p/level_1"] == level_1
    assert found["curriculum/p/level_2"] == 1 - level_1
    assert found["curriculum/seen"] == pytest.approx(4 / 30)
    # One arm has no figures of arms.
    alone = make(rows=levels(20))
    assert set(alone.metrics(alone.fresh(), alone.fresh(), 0)) == {
        f"curriculum/{name}" for name in ("seen", "hard", "easy")
    }


@pytest.mark.parametrize("method", BY_VERDICTS)
def test_stage_distill_refuses_them(method):
    with pytest.raises(ConfigError, match="one of uniform, self_evolving.*fix: use a stage of"):
        DistillSettings(curriculum=CurriculumSettings(method=method))


def test_state_of_other_methods_has_no_problems():
    assert make("uniform").fresh().keys() == make().fresh().keys() - {"right", "wrong"}


def informative(method, seed, **settings):
    """Share of groups, of equally many draws, with some right and some wrong answers.

    Problems differ in difficulty d, the policy's skill s rises from −3 to 3, and a sample is right
    with probability σ(2(s − d)): what is informative moves from the easiest problems to the
    hardest.
    """
    one = make(method, rows=levels(without=N), batch=P, samples=G, seed=seed, **settings)
    draws = np.random.default_rng([seed, 7])
    hard_N, state, found = draws.uniform(-6, 6, N), one.fresh(), []
    for step in range(STEPS):
        ids = one.problem_ids(state, step)
        skill = -3 + 6 * step / STEPS
        p_P = 1 / (1 + np.exp(-2 * (skill - hard_N[ids])))
        right_P = draws.binomial(G, p_P)
        found.append(np.mean((right_P > 0) & (right_P < G)))
        state = one.update(state, ids, np.full(P, NAN), right_P / G)
    return np.mean(found)


@pytest.fixture(scope="module")
def uniform():
    return np.array([informative("uniform", seed) for seed in range(SEEDS)])


def test_the_posterior_finds_informative_problems_while_they_move(uniform):
    got = np.array([informative("posterior", seed) for seed in range(SEEDS)])
    print(f"\nposterior {np.round(got, 2)}, uniform {np.round(uniform, 2)}")
    assert np.all(got > 2 * uniform)


def test_forgetting_follows_the_policy():
    """With memory 1 a problem that was hopeless long ago looks hopeless for ever."""
    kept = np.array([informative("posterior", seed, memory=1.0) for seed in range(SEEDS)])
    got = np.array([informative("posterior", seed) for seed in range(SEEDS)])
    print(f"\nmemory 1: {np.round(kept, 2)}, .5: {np.round(got, 2)}")
    assert np.all(got > kept + 0.05)


def test_pools_are_in_between(uniform):
    got = np.array([informative("pools", seed) for seed in range(SEEDS)])
    print(f"\npools {np.round(got, 2)}, uniform {np.round(uniform, 2)}")
    assert np.all(got > 1.2 * uniform)
