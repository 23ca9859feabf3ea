"""Runs of words that two questions share, by hand."""

import pytest

from distill_jax.data.ngrams import Overlap, words

HELD_OUT = "Tom has 15 pens, drops 6 and uses 2. How many pens has he now, please?"


def test_words_are_normalised():
    assert words("Tom's  PENS:\n½ of ①5!") == ("tom", "s", "pens", "1", "2", "of", "15")
    assert words(" … ") == ()


@pytest.mark.parametrize(
    ("question", "shared"),
    [
        (HELD_OUT, True),
        # 13 of its 16 words in a row, with other signs, case and ends.
        ("Once TOM has 15 pens - drops 6 and uses 2 - how many pens has... none.", True),
        # 12 in a row, then another word.
        ("Tom has 15 pens, drops 6 and uses 2. How many pens had he now, please?", False),
        ("Tom has 15 pens. Now please.", False),
        ("", False),
    ],
)
def test_thirteen_words_in_a_row(question, shared):
    assert (question in Overlap([HELD_OUT], 13)) is shared


def test_a_shorter_question_counts_as_a_whole():
    found = Overlap(["What is 2 + 2?"], 13)
    assert "what is 2+2" in found and "What is 2 + 2 and 3?" not in found
    assert "" not in Overlap([""], 13)
