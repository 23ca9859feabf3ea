"""Each curriculum's shares by hand, at the ends and between."""

import numpy as np
import pytest

from distill_jax.curriculum.methods import CURRICULA, Plan

SIZES = [40, 30, 20, 10]


def plan(levels=(1, 2, 3, 4), sizes=SIZES, **changes):
    settings = {"batch": 4, "temperature": 0.2, "floor": 0.1, "pace_steps": 100}
    settings |= {"competence_start": 0.1}
    return Plan(np.array(levels), np.array(sizes), **{**settings, **changes})


def share(method, step, where=None, q=(0.0, 0.0, 0.0, 0.0)):
    return CURRICULA[method].choose(where or plan(), {"q": np.array(q, np.float32)}, step).share_A


def test_uniform_over_problems():
    np.testing.assert_allclose(share("uniform", 7), [0.4, 0.3, 0.2, 0.1])


def test_self_evolving_follows_values():
    np.testing.assert_allclose(share("self_evolving", 0), [0.25] * 4, rtol=1e-6)
    # e^(.4/.2) = 7.38906 against 3 ones: .71123·.9 + .025
    got = share("self_evolving", 0, q=(0.0, 0.4, 0.0, 0.0))
    np.testing.assert_allclose(got[1], 0.66511, atol=1e-5)
    np.testing.assert_allclose(got.sum(), 1.0)


@pytest.mark.parametrize(("method", "order"), [("easy_to_hard", 1), ("hard_to_easy", -1)])
def test_one_level_at_a_time(method, order):
    seen = [int(np.argmax(share(method, step))) for step in (0, 24, 25, 49, 50, 75, 99, 100, 500)]
    assert seen == [0, 0, 1, 1, 2, 3, 3, 3, 3] if order == 1 else [3, 3, 2, 2, 1, 0, 0, 0, 0]
    assert sorted(share(method, 30)) == [0, 0, 0, 1]


def test_levels_of_several_subjects_and_problems_without_a_level():
    # Two arms of level 1, one of level 4 (levels need not be dense), one without: 20% of all.
    where = plan(levels=(1, 1, 4, 0), sizes=(30, 10, 40, 20))
    np.testing.assert_allclose(share("easy_to_hard", 0, where), [0.6, 0.2, 0, 0.2])
    np.testing.assert_allclose(share("easy_to_hard", 60, where), [0, 0, 0.8, 0.2])
    np.testing.assert_allclose(share("hard_to_easy", 0, where), [0, 0, 0.8, 0.2])


def test_competence_opens_the_easiest_share():
    def at(step, where=None):
        return CURRICULA["competence"].choose(where or plan(), {}, step)

    # c(0) = .1 of 100 problems: 10 of level 1. c(50) = .71063: 71 = 40 + 30 + 1.
    assert at(0).pool_A.tolist() == [10, 0, 0, 0]
    np.testing.assert_allclose(at(0).share_A, [1, 0, 0, 0])
    assert at(50).pool_A.tolist() == [40, 30, 1, 0]
    np.testing.assert_allclose(at(50).share_A, np.array([40, 30, 1, 0]) / 71)
    for step in (100, 10_000):
        assert at(step).pool_A.tolist() == SIZES
        np.testing.assert_allclose(at(step).share_A, [0.4, 0.3, 0.2, 0.1])
    # Never fewer than a batch; two arms of one level open in step.
    assert at(0, plan(batch=60)).pool_A.tolist() == [40, 20, 0, 0]
    where = plan(levels=(1, 1, 2, 0), sizes=(30, 10, 40, 20), competence_start=0.25)
    assert at(0, where).pool_A.tolist() == [15, 5, 0, 20]
    np.testing.assert_allclose(at(0, where).share_A, [0.6, 0.2, 0, 0.2])
    # An arm of a level that opens has at least one: 10 of 40 are 9.75 of 39 and .25 of 1.
    where = plan(levels=(1, 1, 2, 2), sizes=(39, 1, 30, 30), competence_start=0.1)
    assert at(0, where).pool_A.tolist() == [10, 1, 0, 0]


@pytest.mark.parametrize("method", CURRICULA)
def test_every_entry_gives_shares_that_can_be_drawn(method):
    for where in (plan(), plan(sizes=(1, 1, 1, 1)), plan(levels=(2, 2, 7, 0)), plan(pace_steps=1)):
        for step in (0, 1, 50, 99, 1000):
            state = {"q": np.array([0.1, 0.9, -0.5, 0.0], np.float32)}
            choice = CURRICULA[method].choose(where, state, step)
            assert np.all(choice.share_A >= 0) and np.isclose(choice.share_A.sum(), 1)
            assert np.all((choice.pool_A >= 1) | (choice.share_A == 0))
            assert np.all(choice.pool_A <= where.size_A)
