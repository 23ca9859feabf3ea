"""Step labels from counts by hand; a judge's index; how both agree."""

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.reasoning import step_labels
from distill_jax.reasoning.step_labels import Counts, judged_first_wrong, labels

# 8 completions each; three undecided ones leave n
COUNTS = [Counts(6, 2), Counts(3, 2, 3), Counts(0, 8), Counts(1, 7)]
ROOT = Counts(6, 2)


@pytest.mark.parametrize(
    ("kind", "threshold", "expected"),
    [
        ("hard", 0.0, [1.0, 1.0, 0.0, None]),
        ("hard", 0.7, [1.0, 0.0, None, None]),
        ("soft", 0.0, [0.75, 0.6, 0.0, None]),
        ("relative", 0.0, [1.0, 0.8, 0.0, None]),  # .75/.75, .6/.75
    ],
)
def test_by_hand(kind, threshold, expected):
    assert labels(COUNTS, ROOT, kind, threshold) == pytest.approx(expected)


def test_where_nothing_was_right_nothing_is_labelled():
    assert labels([Counts(0, 8)] * 2, Counts(0, 8), "hard") == [None, None]
    # some prefix was completed right: the labels say something of the steps
    assert labels([Counts(2, 6), Counts(0, 8)], Counts(0, 8), "hard") == [1.0, 0.0]
    assert labels([Counts(2, 6), Counts(0, 8)], Counts(0, 8), "relative") == [None, None]


def test_undecided_and_missing_steps_are_not_labelled():
    assert labels([Counts(0, 0, 8), None, Counts(4, 4)], ROOT, "soft") == [None, None, 0.5]
    with pytest.raises(ConfigError, match="labels='mc'"):
        labels(COUNTS, ROOT, "mc")


def test_first_wrong():
    assert step_labels.first_wrong(COUNTS) == 2
    assert step_labels.first_wrong([Counts(0, 0, 8), None, Counts(1, 0)]) == -1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{2}", 2),
        (r"\boxed{0}, no: \boxed{-1}", -1),
        (r"paragraph 2 is wrong", None),
        (r"\boxed{3}", None),
        (r"\boxed{-2}", None),
        (r"\boxed{x}", None),
        ("", None),
    ],
)
def test_a_judges_index(text, expected):
    assert judged_first_wrong(text, 3) == expected


def test_agreement():
    same, table = step_labels.agreement([-1, 1, 1, -1, 2, 0], [-1, 1, 2, 0, -1, None])
    assert same == [True, True, False, False, False, False]
    assert table == {
        "both none": 1, "both the same step": 1, "other steps": 1, "judge alone": 1,
        "counts alone": 1, "undecided by the judge": 1,
    }  # fmt: skip
