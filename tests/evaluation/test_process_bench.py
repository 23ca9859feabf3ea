"""ProcessBench's measure by hand; thresholds; the area under the curve against all pairs."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.evaluation import process_bench as bench


def test_f1_by_hand():
    # with an error: 1 of 2 found; without: 9 of 10 found. 2·.5·.9/1.4 = .64286
    labels = [1, 0, *[-1] * 10]
    predicted = [1, 2, 3, *[-1] * 9]
    assert bench.f1(predicted, labels) == pytest.approx((0.642857, 0.5, 0.9), rel=1e-5)


def test_a_constant_predictor_has_0():
    assert bench.f1([-1, -1], [1, -1]) == (0.0, 0.0, 1.0)
    assert bench.f1([0, 0], [0, -1]) == (0.0, 1.0, 0.0)


def test_one_class_alone():
    assert bench.f1([-1], [-1]) == (0.0, None, 1.0)
    assert bench.f1([2], [2]) == (0.0, 1.0, None)


def test_first_wrong():
    assert bench.first_wrong([0.9, 0.4, 0.2], 0.5) == 1
    assert bench.first_wrong([0.9, 0.5], 0.5) == -1  # at the threshold is right
    assert bench.first_wrong([], 0.5) == -1


def test_threshold_separates():
    scores, labels = [[0.9, 0.3], [0.8, 0.7], [0.2]], [1, -1, 0]
    threshold = bench.best_threshold(scores, labels)
    assert 0.3 < threshold <= 0.7
    assert bench.f1([bench.first_wrong(s, threshold) for s in scores], labels).f1 == 1.0


@hypothesis.given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.7]), st.booleans()), max_size=8))
def test_auc_is_the_share_of_ordered_pairs(rows):
    right = [s for s, r in rows if r]
    wrong = [s for s, r in rows if not r]
    found = bench.auc([s for s, _ in rows], [r for _, r in rows])
    if not right or not wrong:
        assert found is None
    else:
        pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
        assert found == pytest.approx(np.mean(pairs))


def test_auc_within_reads_pairs_of_one_problem_alone():
    # 1 of 1 pair, 0 of 2, ½ of 1 (a tie); one class alone has no pair. Over all solutions the
    # easy problem, all right at .95, would raise it.
    groups = [
        ([0.9, 0.1], [True, False]),
        ([0.2, 0.3, 0.4], [True, False, False]),
        ([0.5, 0.5], [True, False]),
        ([0.95, 0.95], [True, True]),
    ]
    assert bench.auc_within(groups) == 1.5 / 4
    flat = [pair for scores, right in groups for pair in zip(scores, right, strict=True)]
    assert bench.auc([s for s, _ in flat], [r for _, r in flat]) > 0.6
    assert bench.auc_within([([0.3], [True])]) is None
