"""Which pairs of right solutions are made: the rules by hand."""

import pytest

from distill_jax.data.concise_pairs import NATURAL, STRIPPED, Chosen, Sample, of_problem, within


def sample(name, length, **more):
    """A sample that says something of its own."""
    return Sample(name, length, **{"key": name, **more})


CASES = {
    # name: (samples, pairs)
    "the longest first, over the shortest": (
        [sample("a", 10), sample("b", 13), sample("c", 40), sample("d", 20)],
        [(0, 2, NATURAL), (0, 3, NATURAL)],
    ),
    "1.3 times, not less": ([sample("a", 10), sample("b", 12)], []),
    "exactly 1.3 times": ([sample("a", 10), sample("b", 13)], [(0, 1, NATURAL)]),
    "the same program with comments is no natural pair": (
        [sample("a", 10), sample("b", 20, key="a")],
        [],
    ),
    "it keeps the rejected's assertions": (
        [sample("a", 10), sample("b", 15, assertions=1), sample("c", 30, assertions=1)],
        [(1, 2, NATURAL)],
    ),
    "more assertions are fine": (
        [sample("a", 10, assertions=2), sample("b", 15, assertions=1)],
        [(0, 1, NATURAL)],
    ),
    "a hard-coded answer is never chosen, but may be rejected": (
        [sample("a", 5, hardcoded=True), sample("b", 10), sample("c", 20, hardcoded=True)],
        [(1, 2, NATURAL)],
    ),
    "natural before stripped, each rejected once": (
        [
            sample("a", 10), sample("b", 30), sample("c", 26, key="a"),
            sample("s", 8, key="a", stripped=True),
        ],
        [(0, 1, NATURAL), (3, 2, STRIPPED)],
    ),
    "stripped only in place of natural ones": (
        [sample("a", 20), sample("s", 10, key="a", stripped=True)],
        [(1, 0, STRIPPED)],
    ),
    "a stripped one is not rejected": (
        [sample("a", 10), sample("s", 30, stripped=True)],
        [],
    ),
    "a stripped hard-coded one is not chosen": (
        [sample("a", 20), sample("s", 5, key="a", stripped=True, hardcoded=True)],
        [],
    ),
    "of equal ones the first": (
        [sample("a", 30), sample("b", 30), sample("c", 10), sample("d", 10)],
        [(3, 0, NATURAL), (3, 1, NATURAL)],
    ),
    "alone": ([sample("a", 10)], []),
    "nothing": ([], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_a_problem(name):
    samples, wanted = CASES[name]
    found = of_problem(samples, ratio=1.3, per_problem=2)
    assert found == [Chosen(*one) for one in wanted]


def test_at_most_so_many_pairs_of_a_problem():
    samples = [sample(str(n), n) for n in (10, 20, 30, 40)]
    for most in (1, 2, 3, 9):
        found = of_problem(samples, ratio=1.3, per_problem=most)
        assert [one.rejected for one in found] == [3, 2, 1][:most]


def test_the_cap_takes_natural_ones_first_and_levels_in_turn():
    kinds = [NATURAL] * 8 + [STRIPPED] * 4
    levels = [1] * 6 + [2, 3] + [1, 1, 2, 2]
    assert within(kinds, levels, 0, (0,)) == within(kinds, levels, 12, (0,)) == list(range(12))
    for seed in range(5):
        three = within(kinds, levels, 3, (seed,))
        assert {levels[i] for i in three} == {1, 2, 3} and max(three) < 8
        five = within(kinds, levels, 5, (seed,))
        assert set(three) < set(five) and sorted(levels[i] for i in five) == [1, 1, 1, 2, 3]
        ten = within(kinds, levels, 10, (seed,))
        assert ten[:8] == list(range(8)) and sorted(levels[i] for i in ten[8:]) == [1, 2]
    assert len({tuple(within(kinds, levels, 3, (seed,))) for seed in range(20)}) > 3
    assert within(kinds, [None] * 12, 4, (0,)) == within(kinds, [None] * 12, 4, (0,))
