"""Calibration by hand."""

import numpy as np
import pytest

from distill_jax.evaluation.calibration import calibration, of_votes
from distill_jax.evaluation.candidates import Candidate


def test_by_hand():
    # Bin .6–.7: .6 wrong, .65 right: mean .625, right 1/2, gap .125. Bin .9–1: .9, 1 and 1, two of
    # three right: mean 2.9/3, gap 2.9/3 − 2/3 = .3. Bin 0–.1: .05 right: gap .95.
    # ECE = 2/6·.125 + 3/6·.3 + 1/6·.95 = .041667 + .15 + .158333 = .35.
    found = calibration(np.array([0.6, 0.65, 0.9, 1.0, 1.0, 0.05]), np.array([0, 1, 1, 1, 0, 1]))
    assert found["ece"] == pytest.approx(0.35) and found["count"] == 6
    assert [row["count"] for row in found["bins"]] == [1, 0, 0, 0, 0, 0, 2, 0, 0, 3]
    assert found["bins"][6]["confidence"] == pytest.approx(0.625)
    assert found["bins"][6]["right"] == 0.5 and found["bins"][1]["right"] is None
    assert [row["low"] for row in found["bins"]][6] == 0.6 and found["bins"][9]["high"] == 1


def test_nothing_to_calibrate():
    assert calibration(np.zeros(0), np.zeros(0))["ece"] is None


def test_the_share_of_the_winning_group():
    def one(attempt, answer, right, score):
        return Candidate(0, attempt, "", (1,), answer=answer, right=right, score=score)

    first = [one(0, "3", False, 0.3), one(1, "2", True, 0.5), one(2, None, False, 0.9)]
    undecided = [one(0, "4", None, 0.5)]
    silent = [one(0, None, False, 0.5)]
    zero = [one(0, "5", False, 0.0)]
    found = of_votes([first, undecided, silent, zero], [1.0], "weighted")
    # .5 of .8 is right: ECE |.625 − 1|. The others have no vote, no verdict or no weight.
    assert found["ece"] == pytest.approx(0.375) and found["without"] == 3
    # By majority 2 against 1 vote of one each; the last one has all votes and is wrong.
    found = of_votes([first, undecided, silent, zero], [1.0], "majority")
    assert found["ece"] == pytest.approx((0.5 + 1) / 2) and found["without"] == 2
