"""Embedded programs by hand, and against the stories that they belong to."""

import re
from collections import Counter

import pytest

from distill_jax.data import synthetic
from distill_jax.data.fences import fenced
from distill_jax.data.synthetic import ProblemSettings, problems
from distill_jax.data.synthetic_programs import STYLES, Story, write

STORY = Story("Ann", "cards", 6, [("-", 2), ("+", 5)])


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("inline", ["print(6 - 2 + 5)"]),
        ("concise", ["n = 6", "n -= 2", "n += 5", "print(n)"]),
        (
            "checked",
            ["cards = 6", "cards -= 2", "cards += 5", "assert cards >= 0", "print(cards)"],
        ),
        (
            "commented",
            [
                "# Ann has 6 cards", "cards = 6", "# takes 2", "cards -= 2", "# adds 5",
                "cards += 5", "# check", "assert cards >= 0", "print(cards)",
            ],
        ),
        (
            "verbose",
            [
                "# Ann has 6", "n0 = 6", "# takes 2", "n1 = n0 - 2", "assert n1 < n0", "# adds 5",
                "n2 = n1 + 5", "assert n2 > n1", "print(n2)",
            ],
        ),
    ],
)  # fmt: skip
def test_styles_by_hand(style, lines):
    assert STYLES[style](STORY) == lines
    assert STORY.answer == 9


def drawing(*numbers):
    left = list(numbers)
    return lambda count: left.pop(0) % count


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ((1, 200), ("n = 6\nn -= 2\nn += 5\nprint(n)", "concise")),
        ((1, 199, 1), ("cards = 9\nprint(cards)", "constant")),
        ((0, 199, 0, 0, 1), ("print(6 + 2 + 5)", "wrong")),  # the first step's sign
        ((0, 199, 0, 1, 0), ("print(6 - 2 + 6)", "wrong")),  # the second step's operand
    ],
)
def test_flaws_by_hand(numbers, found):
    assert write(STORY, 0.2, drawing(*numbers)) == found


def run(program):
    """What an embedded program prints; its operations are + and - (slow oracle)."""
    values = {}
    for line in program.splitlines():
        if match := re.fullmatch(r"(\w+) ([-+]?)= (.*)", line):
            name, sign, expression = match.groups()
            before = values.get(name, 0)
            value = sum_of(expression, values)
            values[name] = {"": value, "+": before + value, "-": before - value}[sign]
        elif match := re.fullmatch(r"print\((.*)\)", line):
            return sum_of(match[1], values)
    raise AssertionError(program)


def sum_of(expression, values):
    words = ["+", *expression.split()]
    terms = zip(words[::2], words[1::2], strict=True)
    found = [(sign, values[word] if word in values else int(word)) for sign, word in terms]
    return sum(value if sign == "+" else -value for sign, value in found)


def test_programs_print_the_answer_unless_they_are_wrong():
    found = problems("train", 600, ProblemSettings(style="program"), 3)
    kinds = Counter(one.extra["program"] for one in found)
    assert set(kinds) == {*STYLES, "wrong", "constant"}
    assert 90 <= kinds["wrong"] + kinds["constant"] <= 150  # 0.2 of 600
    for one in found:
        program = one.solution.removeprefix("```python\n").removesuffix("\n```")
        assert one.solution == fenced(program)
        assert (str(run(program)) == one.answer) == (one.extra["program"] != "wrong")


def test_the_questions_are_those_of_the_other_styles():
    both = [problems("test", 60, ProblemSettings(style=s), 1) for s in ("brief", "program")]
    assert [p.question for p in both[0]] == [p.question for p in both[1]]
    assert [p.answer for p in both[0]] == [p.answer for p in both[1]]
    assert problems("test", 60, ProblemSettings(style="program"), 1) == both[1]


@pytest.mark.parametrize(("flawed", "kinds"), [(0.0, set(STYLES)), (1.0, {"wrong", "constant"})])
def test_the_share_of_flawed_programs(flawed, kinds):
    found = problems("train", 100, ProblemSettings(style="program", flawed=flawed), 0)
    assert {one.extra["program"] for one in found} == kinds


def test_a_tokenizer_learns_from_programs():
    texts = synthetic.texts(ProblemSettings(style="program"), 0, 5)
    assert sum("```python" in text for text in texts) == 5
