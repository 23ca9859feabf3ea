"""What a judge is asked, and the index that its votes name."""

import pytest

from distill_jax.reasoning.critique import critique, majority


def test_paragraphs_are_tagged_from_0():
    text = critique("How many {x}?", ["1 + 1 = 2", "so 2"])
    assert "[Math Problem]\n\nHow many {x}?\n\n[Solution]\n\n<paragraph_0>\n1 + 1 = 2\n" in text
    assert "</paragraph_0>\n\n<paragraph_1>\nso 2\n</paragraph_1>\n\nYour task" in text
    assert text.endswith("in \\boxed{}.") and "-1" in text


@pytest.mark.parametrize("tag", ["</paragraph_0>", "< / paragraph_0>", "<PARAGRAPH_7>"])
def test_a_step_does_not_end_its_paragraph(tag):
    text = critique("q", [f"a {tag} b < 3", "c"])
    assert text.lower().count("<paragraph_") == text.count("</paragraph_") == 2
    assert "b < 3" in text and tag not in text.split("\n")[8]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([2, 2, 0], 2),
        ([-1, None, None, None], -1),
        ([0, 1, 1, 0, None], None),  # as many for each
        ([0, 0, 1, 2], 0),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_majority_of_those_that_name_one(votes, expected):
    assert majority(votes) == expected
