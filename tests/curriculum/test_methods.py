"""Each curriculum's shares or places by hand, at the ends and between."""

import numpy as np
import pytest

from distill_jax.curriculum.methods import CURRICULA, Plan

SIZES = [40, 30, 20, 10]


def plan(levels=(1, 2, 3, 4), sizes=SIZES, **changes):
    settings = {"batch": 4, "temperature": 0.2, "floor": 0.1, "pace_steps": 100}
    settings |= {"competence_start": 0.1, "target": 0.5, "pool_weight": 0.2}
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


@pytest.mark.parametrize("method", [name for name, one in CURRICULA.items() if one.choose])
def test_every_entry_gives_shares_that_can_be_drawn(method):
    for where in (plan(), plan(sizes=(1, 1, 1, 1)), plan(levels=(2, 2, 7, 0)), plan(pace_steps=1)):
        for step in (0, 1, 50, 99, 1000):
            state = {"q": np.array([0.1, 0.9, -0.5, 0.0], np.float32)}
            choice = CURRICULA[method].choose(where, state, step)
            assert np.all(choice.share_A >= 0) and np.isclose(choice.share_A.sum(), 1)
            assert np.all((choice.pool_A >= 1) | (choice.share_A == 0))
            assert np.all(choice.pool_A <= where.size_A)


def places(method, right, wrong, seed=0, **changes):
    counts = np.array(right, np.float32), np.array(wrong, np.float32)
    return CURRICULA[method].place(plan(**changes), *counts, np.random.default_rng(seed))


def test_posterior_is_the_distance_to_the_target():
    # Beta(1+r, 1+w) of so many verdicts is a point: |.5 − .2|, |.9 − .2|, |.2 − .2|.
    right, wrong = np.array([5e6, 9e6, 2e6]), np.array([5e6, 1e6, 8e6])
    got = places("posterior", right, wrong, target=0.2)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [0.3, 0.7, 0.0], atol=2e-3)


def test_posterior_keeps_what_it_has_not_seen():
    """Near .5, Beta(5, 5) has density 2.46, Beta(1, 1) 1 and Beta(1, 9) 9/2⁸ = .035."""
    kinds = np.repeat([0, 1, 2], 100_000)
    got = places("posterior", np.array([4, 0, 0])[kinds], np.array([4, 0, 8])[kinds])
    near = np.bincount(kinds[got < 0.01], minlength=3) / 100_000 / 0.02
    np.testing.assert_allclose(near, [2.46, 1.0, 0.035], atol=0.12)


def test_pools_draw_by_weights():
    """Means 1/10, 5/10, 9/10 and ½ of a problem never seen: pools hard, normal, easy, normal."""
    kinds = np.repeat([0, 1, 2, 3], 50_000)
    got = places("pools", np.array([0, 4, 8, 0])[kinds], np.array([8, 4, 0, 0])[kinds])
    # Few of many: shares are those of the weights .2, 1, .2, 1.
    first = np.argsort(got)[:4_000]
    share = np.bincount(kinds[first], minlength=4) / 4_000
    np.testing.assert_allclose(share, np.array([0.2, 1, 0.2, 1]) / 2.4, atol=0.03)
    # The bounds are those of prime-rl: .25 is hard, .75 is normal.
    edge = places("pools", [0, 2], [2, 0], pool_weight=1e-9)
    assert edge[0] > 1e3 > edge[1]


@pytest.mark.parametrize("method", [name for name, one in CURRICULA.items() if one.place])
@pytest.mark.parametrize("right", [0.0, 1e-40, 3.5, 1e30])
def test_every_place_is_finite(method, right):
    got = places(method, [right, 0.0, right], [0.0, right, right])
    assert got.shape == (3,) and np.all(np.isfinite(got)) and np.all(got >= 0)
