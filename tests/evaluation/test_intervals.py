import math

import numpy as np
import pytest
from scipy import stats

from distill_jax.evaluation import intervals


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (.8 + .19208)/(1.38416) = .71674, half .22651 →
    # [.49016, .94330].
    got = intervals.wilson(8, 10)
    np.testing.assert_allclose(got, [0.8, 0.49016, 0.94330], atol=2e-4)
    # Nothing right is not certainty: upper end z²/(n + z²).
    z2 = 1.959964**2
    np.testing.assert_allclose(intervals.wilson(0, 20), [0, 0, z2 / (20 + z2)], atol=1e-6)
    np.testing.assert_allclose(intervals.wilson(20, 20), [1, 20 / (20 + z2), 1], atol=1e-6)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # AIME, MATH-500 and GSM8K: the interval's width is set by the number of problems.
    [(16, 30, 0.361, 0.698), (400, 500, 0.763, 0.833), (1100, 1319, 0.813, 0.853)],
)
def test_wilson_of_the_benchmarks(right, total, low, high):
    got = intervals.wilson(right, total)
    np.testing.assert_allclose([got.low, got.high], [low, high], atol=5e-4)


def test_what_chance_does_to_few_problems():
    # At p = 1/2 the half-width is z/√(n + z²): 1.96/√33.84 = .337 of which half is .168.
    z = 1.959964
    for total in (30, 83, 500):
        np.testing.assert_allclose(intervals.noise(total), z / (2 * np.sqrt(total + z * z)))
    assert round(100 * intervals.noise(30)) == 17
    assert intervals.noise(380) < 0.0501 and intervals.noise(376) > 0.05


def test_samples_of_one_problem_are_one_draw():
    # 30 problems, 16 samples each; 15 problems always solved, 15 never: sd √(.25·30/29) = .50855,
    # t(29) = 2.04523, half = .50855·2.04523/√30 = .18990. 480 free samples would give ±.045.
    got = intervals.mean_interval(np.repeat([1.0, 0.0], 15))
    np.testing.assert_allclose([got.low, got.high], [0.5 - 0.18990, 0.5 + 0.18990], atol=1e-4)
    assert intervals.noise(480) < 0.045
    # Problems that differ less leave less: more samples narrow the interval down to their spread.
    assert np.ptp(intervals.mean_interval(np.tile([0.4, 0.6], 15))[1:]) < 0.08


def test_mean_interval_by_hand():
    # Scores 0, .5, 1, .5: mean .5, sd √(.5/3) = .40825, t(3) = 3.18245: half = .64962.
    got = intervals.mean_interval(np.array([0, 0.5, 1, 0.5]))
    np.testing.assert_allclose(got, [0.5, 0.0, 1.0], atol=1e-9)  # cut to [0, 1]
    # The same scores 25 times over: sd .35533 (n−1 = 99), t = 1.98422, half .070506.
    got = intervals.mean_interval(np.tile([0, 0.5, 1, 0.5], 25))
    np.testing.assert_allclose(got, [0.5, 0.5 - 0.070506, 0.5 + 0.070506], atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_scores_without_spread_still_have_an_interval(value):
    got = intervals.mean_interval(np.full(12, value))
    assert got == intervals.wilson(12 * value, 12)
    assert got.high - got.low > 0.1
    alone = intervals.mean_interval(np.array([value]))
    assert alone.mean == value and alone.high - alone.low > 0.5


def test_coverage_of_the_mean_interval():
    # Ten problems of chance p ~ U(0, 1), four samples each: the true mean is .5.
    rng = np.random.default_rng(0)
    p = rng.random((400, 30))
    scores = rng.binomial(4, p) / 4
    hit = [e.low <= 0.5 <= e.high for e in (intervals.mean_interval(row) for row in scores)]
    assert 0.92 < np.mean(hit) < 0.98


def test_paired_by_hand():
    # Differences 1, 0, 1, 0: mean .5, sd .57735, error .288675, t = 1.73205, p(3) = .18169.
    got = intervals.paired(np.array([0, 0, 0, 1.0]), np.array([1, 0, 1, 1.0]))
    np.testing.assert_allclose(got.mean, 0.5)
    np.testing.assert_allclose(got.p_value, 0.18169, atol=1e-5)
    np.testing.assert_allclose(0.5 - got.low, 3.18245 * 0.288675, atol=1e-4)
    assert not got.significant


def test_no_difference_is_beyond_one():
    got = intervals.paired(np.zeros(5), np.array([1.0, 1, 1, 1, 0]))
    # mean .8, s.e. .2, t 2.776: .8 + .56 would be 1.36.
    np.testing.assert_allclose([got.mean, got.low, got.high], [0.8, 0.8 - 0.55529, 1.0], atol=1e-4)


def test_a_change_without_spread_is_judged_by_its_signs():
    none = intervals.paired(np.full(9, 0.5), np.full(9, 0.5))
    # None of nine changed. Wilson's lower end of 9 of 9 is 1/(1 + z²/9) = .70085, so up to .29915
    # of the problems may change: an interval of width 0 would claim to know.
    np.testing.assert_allclose(none, [0.0, -0.29915, 0.29915, 1.0], atol=1e-5)
    # One or two problems prove nothing, however they changed; six of six: 2·2^−6 = .03125.
    for n, p_value in ((1, 1.0), (2, 0.5), (6, 0.03125)):
        got = intervals.paired(np.zeros(n), np.ones(n))
        assert got.p_value == p_value and got.significant == (n == 6)
        assert got.low < got.high == got.mean == 1.0
    down = intervals.paired(np.ones(6), np.full(6, 0.5))
    assert down.low == down.mean == -0.5 < down.high < 0


def test_mcnemar_by_hand():
    # Gained 8, lost 1: two-sided binomial 2·(1 + 9)/2⁹ = .0390625.
    before = np.array([0] * 8 + [1] + [1] * 5 + [0] * 5)
    after = np.array([1] * 8 + [0] + [1] * 5 + [0] * 5)
    got = intervals.mcnemar(before, after)
    np.testing.assert_allclose(got.p_value, 0.0390625)
    np.testing.assert_allclose(got.mean, 7 / 19)
    assert got.significant and got.low < got.mean < got.high
    assert intervals.mcnemar(before, before).p_value == 1.0
    for gained, lost in ((1, 1), (7, 2), (0, 400), (30, 31)):
        pairs = np.array([[0, 1]] * gained + [[1, 0]] * lost)
        want = stats.binomtest(gained, gained + lost, 0.5).pvalue
        got = intervals.mcnemar(pairs[:, 0], pairs[:, 1]).p_value
        np.testing.assert_allclose(got, want, rtol=1e-9)
    np.testing.assert_allclose(intervals.mcnemar(np.zeros(3), np.ones(3)).p_value, 0.25)


def test_pass_at_k():
    np.testing.assert_allclose(intervals.pass_at_k(8, 2, 4), 0.78571, atol=1e-5)
    assert intervals.pass_at_k(4, 0, 2) == 0.0 and intervals.pass_at_k(4, 3, 2) == 1.0
    assert math.isclose(intervals.pass_at_k(8, 3, 1), 3 / 8)
    with pytest.raises(ValueError, match="k=5 of 4"):
        intervals.pass_at_k(4, 1, 5)


def test_holm_by_hand():
    # Sorted .005, .01, .03, .04: ·4 = .02, ·3 = .03, ·2 = .06, and .04 may not fall below .06.
    got = intervals.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(got, [0.03, 0.06, 0.06, 0.02], atol=1e-12)
    assert intervals.holm([0.2]) == [0.2] and intervals.holm([]) == []
    assert intervals.holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_interval_of_a_mean_over_tokens_counts_answers():
    rng = np.random.default_rng(0)
    size_N = rng.integers(1, 20, 400)
    # Tokens of an answer are alike: as many tokens as they are, there are 400 things to go by.
    total_N = size_N * rng.random(400)
    got = intervals.ratio_interval(total_N, size_N)
    np.testing.assert_allclose(got.mean, total_N.sum() / size_N.sum())
    draws = rng.integers(0, 400, (4000, 400))
    means = total_N[draws].sum(axis=1) / size_N[draws].sum(axis=1)  # the bootstrap
    np.testing.assert_allclose(got[1:], np.quantile(means, [0.025, 0.975]), atol=0.004)
    # Of equal sizes it is the t interval of the answers' means.
    value_N = rng.random(30)
    np.testing.assert_allclose(
        intervals.ratio_interval(7 * value_N, np.full(30, 7)), intervals.mean_interval(value_N)
    )


def test_a_ratio_without_spread():
    size_N = np.array([3, 5, 2])
    assert intervals.ratio_interval(size_N * 1.0, size_N, 1.0) == intervals.wilson(3, 3)
    assert intervals.ratio_interval(size_N * 0.0, size_N) == (0.0, 0.0, 0.0)
