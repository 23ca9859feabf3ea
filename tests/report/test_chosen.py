"""Which problems are shown: by hand."""

import pytest

from distill_jax.core.errors import DataError
from distill_jax.report import chosen
from distill_jax.report.chosen import BETTER, RIGHT, WORSE, WRONG
from tests.report.views import LONG


def problems(right, levels):
    return [
        {"id": f"p{i}", "level": level, "greedy_right": r == "+"}
        for i, (r, level) in enumerate(zip(right, levels, strict=True))
    ]


LEVELS = [1, 1, 1, 2, 2, 2, 3, 1, None]
EARLIER = problems("--------+", LEVELS)
LATER = problems("++++----+", LEVELS)


def test_kinds():
    found = chosen.by_kind(EARLIER, LATER)
    assert found == {BETTER: [0, 1, 2, 3], WORSE: [], WRONG: [4, 5, 6, 7], RIGHT: [8]}


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (1, [0]),
        (2, [0, 7]),  # one of each kind; of level 1 the first that was wrong both times is 7
        (3, [0, 3, 7]),  # then level 2
        (4, [0, 3, 7, 4]),
        (8, [0, 3, 1, 2, 7, 4, 6, 5]),
        (9, [0, 3, 1, 2, 7, 4, 6, 5, 8]),
        (99, [0, 3, 1, 2, 7, 4, 6, 5, 8]),
        (0, []),
    ],
)
def test_kinds_and_levels_take_turns(count, places):
    picked = chosen.choose(EARLIER, LATER, count)
    assert [choice.place for choice in picked] == places
    found = chosen.by_kind(EARLIER, LATER)
    assert all(choice.place in found[choice.kind] for choice in picked)


def test_a_lone_loss_is_always_shown():
    earlier, later = problems("-----+", [1] * 6), problems("+++++-", [1] * 6)
    assert chosen.Choice(5, WORSE) in chosen.choose(earlier, later, 2)


def test_other_problems_are_refused():
    with pytest.raises(DataError, match="different problems"):
        chosen.choose(EARLIER, [*LATER[1:], LATER[0]], 3)


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("teacher",), None),
        (("teacher", "sft"), ("sft", "sft")),
        (("teacher", "base"), ("base", "base")),
        (("sft", "base"), ("base", "sft")),
        (("base", "distill"), ("base", "distill")),
        (("sft", "distill"), ("distill", "distill")),  # distill starts from the base
        (("sft", "distill", "rl_short"), ("sft", "rl_short")),  # rl was not evaluated
        (("base", "sft", "rl"), ("sft", "rl")),
        (("base", "sft", "rl", "rl_short"), ("rl", "rl_short")),
    ],
)
def test_who_is_compared(names, pair):
    assert chosen.compared(dict.fromkeys(names), LONG) == pair
