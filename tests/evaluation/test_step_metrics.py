"""Figures of steps' scores against their labels, worked by hand."""

import numpy as np
import pytest

from distill_jax.evaluation.step_metrics import figures

# Three solutions; the second has an error at 1, the third one at 0 and a step without a label.
SCORES = [np.float32([0.91, 0.81]), np.float32([0.71, 0.41, 0.3]), np.float32([0.61, 0.2])]
LABELS = [[1.0, 1.0], [1.0, 0.0, None], [0.0, None]]


def test_by_hand():
    got = figures(SCORES, LABELS)
    # labelled: .91 .81 .71 right, .41 .61 wrong: (.0081 + .0361 + .0841 + .1681 + .3721)/5
    assert got["brier"] == pytest.approx(0.6685 / 5, abs=1e-6)
    # each is alone in a bin: gaps .09 .19 .29 .41 .61, a fifth each
    assert got["ece"] == pytest.approx(1.59 / 5, abs=1e-6)
    assert got["auc"] == 1.0  # both wrong ones are below all right ones
    # .61 passes as right: precision of errors 1/1, recall 1/2
    assert (got["precision"], got["recall"], got["accuracy"]) == (1.0, 0.5, 0.8)
    assert got["balanced_accuracy"] == 0.75
    # first errors: -1 found, 1 found, 0 missed (said to be none): 2·½·1/(½ + 1)
    assert got["first_error_accuracy"] == 0.5 and got["f1"] == pytest.approx(2 / 3)
    assert got["share_min_at_last"] == 1.0
    loss = -np.mean(np.log([0.91, 0.81, 0.71, 0.59, 0.39]))
    assert got["loss"] == pytest.approx(loss, abs=1e-6)
    assert got["loss_minus_floor"] == pytest.approx(loss, abs=1e-5)


def test_a_soft_run_is_measured_above_its_floor():
    # y = p = .375 everywhere is the best there is: H(.375) = .661563.
    got = figures([np.float32([0.375, 0.375])], [[0.375, 0.375]])
    assert got["loss"] == pytest.approx(0.661563, abs=1e-5)
    assert got["loss_minus_floor"] == got["ece"] == 0 == got["share_min_at_last"]


def test_steps_after_the_last_label_say_nothing():
    got = figures([np.float32([0.9, 0.9, 0.1])], [[1.0, 1.0, None]])
    assert got["f1"] == 0.0 and "first_error_accuracy" not in got  # no solution with an error
    assert "auc" not in got and "precision" not in got and "recall" not in got
    both = figures([np.float32([0.9, 0.1])] * 2, [[1.0, None], [1.0, 0.0]])
    assert both["f1"] == 1.0


def test_ece_within_a_bin_is_that_of_the_mean():
    # .52 and .58 in one bin with labels 1 and 0: |1.1 − 1|/2
    assert figures([np.float32([0.52, 0.58])], [[1.0, 0.0]])["ece"] == pytest.approx(0.05, abs=1e-6)
