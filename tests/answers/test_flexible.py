import pytest

from distill_jax.answers import flexible_right


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("180", "Therefore, James runs 180 meters a week.", True),
        (
            "180",
            "James runs 3*60=180 meters in 2 sprints.",
            False,
        ),  # not the last
        ("1,000", "It is $1000.", True),
        ("1000", "It costs $1,000.00.", False),  # as text, as the harness compares
        ("18", "She makes $18 every day.", True),
        ("18", "\\boxed{18}", True),
        ("18", "#### 18\n\nThe first 3 are free.", False),
        ("-4", "so x = -4", True),
        ("4", "so x = -4", False),
        ("5", "five", False),
        ("5", "", False),
        ("5", "It is 5...", False),  # its pattern takes full stops for a number
        ("2.5", "about 2.5", True),
        ("\\frac{1}{2}", "it is 0.5", None),
        ("x + 1", "1", None),
        ("", "1", None),
    ],
)
def test_the_last_number(gold, text, right):
    assert flexible_right(gold, text) is right


def test_a_long_text_takes_no_long_time():
    assert flexible_right("7", "$" * 500_000 + " 7") is True
