"""Draws as a pure function of seed, step and state; the uniform order; notes and errors."""

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.methods import CURRICULA
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.data import batching
from tests.curriculum.problems import levels

ROWS, NAN = levels(12, 9, 6), np.nan


def make(method="self_evolving", rows=ROWS, seed=0, batch=8, steps=30, rounds=1, **settings):
    how = CurriculumSettings(method=method, **settings)
    return Curriculum(how, rows, seed=seed, batch=batch, steps=steps, rounds=rounds)


def run(one, steps, state=None, start=0):
    """Draws of some steps; the middle level teaches most."""
    state, out = one.fresh() if state is None else state, []
    for step in range(start, steps):
        ids = one.problem_ids(state, step)
        out.append(ids.tolist())
        signal = np.where(one.arms.arm_N[ids] == 1, 0.9, 0.1)
        state = one.update(state, ids, signal, signal)
    return out, state


def test_uniform_is_the_order_without_a_curriculum():
    one = make("uniform", rounds=3, rows=levels(12, 9, without=6))
    got, before = [], ()
    for _ in range(3):
        got.append(one.problem_ids(one.fresh(), 5, before))
        before = np.concatenate([before, got[-1]]).astype(int)
    wanted = [batching.batch_indices(0, 5 * 3 + number, 8, 27) for number in range(3)]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("method", CURRICULA)
def test_a_resumed_run_draws_the_same(method):
    whole, last = run(make(method), 10)
    _, state = run(make(method), 4)
    state = {name: np.array(leaf) for name, leaf in state.items()}  # as from a checkpoint
    rest, again = run(make(method), 10, state, start=4)
    assert rest == whole[4:]
    for name in last:
        np.testing.assert_array_equal(last[name], again[name], err_msg=name)
    assert run(make(method, seed=1), 10)[0] != whole


def test_shares_are_kept_and_an_arm_repeats_nothing_before_its_end():
    one = make(temperature=1.0, batch=9)
    draws, state = run(one, 40)
    for arm, members in enumerate(one.arms.members):
        given = [n for ids in draws for n in ids if one.arms.arm_N[n] == arm]
        assert len(given) == state["count"][arm] > 2 * len(members)
        for begin in range(0, len(given) - len(members), len(members)):
            assert sorted(given[begin : begin + len(members)]) == sorted(members)
        epochs = given[: len(members)], given[len(members) : 2 * len(members)]
        assert epochs[0] != epochs[1]


def test_draws_have_the_shares_that_are_shown():
    one = make(batch=4000, floor=0.2)
    state = {**one.fresh(), "q": np.array([0.0, 0.3, 0.1], np.float32)}
    after = one.update(state, one.problem_ids(state, 3), np.full(4000, NAN), np.full(4000, NAN))
    figures = one.metrics(state, after, 3)
    shares = [figures[f"curriculum/p/level_{n}"] for n in (1, 2, 3)]
    np.testing.assert_allclose(np.array(after["count"]) / 4000, shares, atol=0.03)
    assert min(shares) >= 0.2 / 3 and np.isclose(sum(shares), 1)
    assert figures["curriculum/q/level_2"] == pytest.approx(0.3)
    # Never measured: no figure.
    assert "curriculum/mastery/level_1" not in figures


def test_draws_of_one_step_go_on_where_the_first_stopped():
    one = make("easy_to_hard", rounds=2)
    first = one.problem_ids(one.fresh(), 0)
    second = one.problem_ids(one.fresh(), 0, first)
    # Level 1 has 12 problems: 8 and 4 of one shuffle, then 4 of the next.
    assert len({*first, *second[:4]}) == 12
    nan = np.full(16, NAN)
    state = one.update(one.fresh(), np.concatenate([first, second]), nan, nan)
    assert state["count"].tolist() == [16, 0, 0]


def test_competence_draws_from_the_open_pool_alone():
    rows = levels(50, 50)
    one = make("competence", rows=rows, batch=10, steps=20, competence_start=0.2)
    state, hardest = one.fresh(), []
    for step in range(20):
        ids = one.problem_ids(state, step)
        # Difficulty as a rank from 1: the level, then the length of the solution.
        hardest.append(max(50 * one.arms.arm_N[n] + len(rows[n].solution) for n in ids))
        state = one.update(state, ids, np.zeros(10), np.zeros(10))
    # √(t·(1 − .2²)/20 + .2²) of the 100 problems are open at step t
    allowed = [100 * np.sqrt(step * 0.96 / 20 + 0.04) for step in range(20)]
    assert all(rank <= most for rank, most in zip(hardest, allowed, strict=True))
    assert hardest[0] > 10 and max(hardest) > 85


def test_an_arm_smaller_than_its_share_repeats():
    one = make("hard_to_easy", rows=levels(5, 2), batch=6)
    ids = one.problem_ids(one.fresh(), 0)
    assert np.bincount(ids, minlength=7)[one.arms.members[1]].tolist() == [3, 3]


def test_problems_without_a_level_are_counted_and_said():
    rows = levels(3, without=2)
    said = "2 of 5 problems have no level: drawn as one group, no_level in the metrics"
    assert make(rows=rows).note == said
    dropped = make("uniform", rows=rows, unlevelled="drop", batch=2)
    assert dropped.note == "2 of 5 problems have no level: dropped"
    drawn = {n for step in range(20) for n in dropped.problem_ids(dropped.fresh(), step).tolist()}
    assert drawn == {0, 1, 2}
    assert make().note == ""
    with pytest.raises(DataError, match="curriculum competence: none of 4 problems has a level"):
        make("competence", rows=levels(without=4))
    # Nothing to choose from, nothing to say.
    one = make("uniform", rows=levels(without=4), batch=2)
    assert one.metrics(one.fresh(), one.fresh(), 0) == {}


def test_draws_of_one_step_choose_their_arms_anew():
    one = make(temperature=1.0, batch=64, rounds=2)
    first = one.problem_ids(one.fresh(), 3)
    second = one.problem_ids(one.fresh(), 3, first)
    assert one.arms.arm_N[first].tolist() != one.arms.arm_N[second].tolist()


def test_the_shares_shown_are_those_that_the_step_drew_from():
    one = make(temperature=0.2, floor=0.0)
    before = one.fresh()
    after = one.update(before, np.arange(3), np.array([0.9, 0.0, 0.0]), np.zeros(3))
    shown = one.metrics(before, after, 0)
    assert [shown[f"curriculum/p/{name}"] for name in one.arms.names] == pytest.approx([1 / 3] * 3)
    assert max(shown[f"curriculum/q/{name}"] for name in one.arms.names) > 0.1
