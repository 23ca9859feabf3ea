"""Dynamic sampling by hand: which groups are replaced, and what every drawn problem is given."""

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.rollout import groups
from distill_jax.rollout.groups import Drawn
from distill_jax.rollout.sampler import Rollout
from distill_jax.tasks import Judged

G = 2
WRONG, RIGHT, MIXED, DIFFERENT = (0, 0), (1, 1), (1, 0), (0, 1)


def drawn(*ids, samples=G):
    """Groups of problems; every array of a completion holds 10·id + its number in the group."""
    numbers_B = np.array([10 * one + sample for one in ids for sample in range(samples)])
    rollout = Rollout(
        np.repeat(numbers_B[:, None], 3, axis=1).astype(np.int32),
        numbers_B.astype(np.int32),
        numbers_B % 2 == 1,
        -np.repeat(numbers_B[:, None], 3, axis=1).astype(np.float32),
    )
    problems = [Problem(f"p{one}", f"question {one}", "", "1") for one in ids]
    return Drawn(problems, [[one] for one in ids], rollout, [f"text {n}" for n in numbers_B])


def judged(*verdicts, ids):
    """Verdicts of groups; a wrong completion with an odd number is undecided."""
    samples = len(verdicts[0])
    right_B = np.array(verdicts, bool).reshape(-1)
    undecided_B = ~right_B & (np.arange(len(right_B)) % 2 == 1)
    numbers = [10 * one + sample for one in ids for sample in range(samples)]
    details = [{"number": number} for number in numbers]
    return Judged(right_B, undecided_B, details, [str(number) for number in numbers])


def first(*verdicts):
    """The first round: problems 1, 2, ... with these verdicts."""
    ids = list(range(1, len(verdicts) + 1))
    samples = len(verdicts[0])
    return groups.collect(drawn(*ids, samples=samples), judged(*verdicts, ids=ids), np.array(ids))


class Draws:
    """Further rounds, each ids and verdicts; keeps what it was asked."""

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def __call__(self, ids_K, number):
        self.asked.append((ids_K.tolist(), number))
        ids, verdicts = self.rounds.pop(0)
        made = drawn(*ids, samples=len(verdicts[0]))
        return np.array(ids), made, judged(*verdicts, ids=ids)


def test_one_sample_a_problem_has_the_signal_of_its_arm():
    right, wrong = [1], [0]
    found = first(right, wrong, wrong, wrong, right, wrong, wrong)
    assert found.correctness_K().tolist() == [0.0] * 7
    # Arm 0 has 1 right of 4: 2·√(¼·¾·4/3) = 1; arm 1 one of 2: p(1−p)·2 = ½, at most ¼; arm 2 one
    # sample, which says nothing.
    signal_K = found.correctness_K(np.array([0, 0, 0, 0, 1, 1, 2]))
    np.testing.assert_allclose(signal_K, [1.0] * 6 + [np.nan])
    # 1 of 5: 2·√(4/25·5/4).
    (of_five, *_) = found.correctness_K(np.array([0, 0, 0, 0, 2, 0, 2]))
    np.testing.assert_allclose(of_five, 2 * np.sqrt(0.2))


def test_collect_trains_on_every_group():
    found = first(WRONG, MIXED, RIGHT)
    assert found.ids_K.tolist() == [1, 2, 3] and found.owner_P.tolist() == [0, 1, 2]
    assert found.useful_K.tolist() == [False, True, False]
    assert found.accuracy_K.tolist() == [0.0, 0.5, 1.0]
    assert found.correctness_K().tolist() == [0.0, 1.0, 0.0]  # 2·√(p(1−p))
    # All are trained on, so that each has the signal of its own group, equal or not.
    assert found.advantage_K(np.array([0.1, 0.2, 0.3])).tolist() == [0.1, 0.2, 0.3]
    assert found.drawn.samples == G
    assert [p.id for p in found.drawn.repeated()] == ["p1", "p1", "p2", "p2", "p3", "p3"]


def test_equal_groups_are_replaced_by_those_that_differ():
    # Of round 1 group 2 of 3 differs. Round 2 offers 4 (differs), 5 (all right), 6 (differs):
    # 4 goes to place 0, 6 to place 2.
    draws = Draws(([4, 5, 6], [MIXED, RIGHT, DIFFERENT]))
    found = groups.replace_equal(first(WRONG, MIXED, RIGHT), 3, draws)
    assert draws.asked == [([1, 2, 3], 1)]  # full: no further round is drawn
    assert found.ids_K.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.owner_P.tolist() == [3, 1, 5]
    assert found.useful_K.tolist() == [False, True, False, True, False, True]
    assert found.accuracy_K.tolist() == [0.0, 0.5, 1.0, 0.5, 1.0, 0.5]
    # 1, 3 and 5 agree within their groups: 0, not NaN.
    advantage_K = found.advantage_K(np.array([0.4, 0.2, 0.6]))
    assert advantage_K.tolist() == [0.0, 0.2, 0.0, 0.4, 0.0, 0.6]


def test_everything_of_a_group_moves_with_it():
    found = groups.replace_equal(
        first(WRONG, MIXED, RIGHT), 1, Draws(([4, 5, 6], [MIXED, RIGHT, DIFFERENT]))
    )
    want, numbers = drawn(4, 2, 6), [40, 41, 20, 21, 60, 61]
    assert found.drawn.problems == want.problems and found.drawn.prompts == want.prompts
    assert found.drawn.texts == want.texts == [f"text {n}" for n in numbers]
    for got_B, want_B in zip(found.drawn.rollout, want.rollout, strict=True):
        np.testing.assert_array_equal(got_B, want_B)
        assert got_B.dtype == want_B.dtype
    assert found.judged.right_B.tolist() == [1, 0, 1, 0, 0, 1]
    assert found.judged.undecided_B.tolist() == [0, 1, 0, 1, 0, 0]
    assert [one["number"] for one in found.judged.details] == numbers


def test_a_useful_group_without_room_is_not_a_number():
    # One place is free; 4 takes it, 5 differs too but finds no room.
    found = groups.replace_equal(first(MIXED, WRONG), 2, Draws(([4, 5], [MIXED, DIFFERENT])))
    assert found.owner_P.tolist() == [0, 2]
    np.testing.assert_array_equal(found.advantage_K(np.array([0.3, 0.7])), [0.3, 0.0, 0.7, np.nan])


def test_places_that_stay_equal_keep_their_first_group():
    draws = Draws(([3, 4], [RIGHT, WRONG]), ([5, 6], [RIGHT, DIFFERENT]))
    before = first(WRONG, RIGHT)
    found = groups.replace_equal(before, 2, draws)
    assert draws.asked == [([1, 2], 1), ([1, 2, 3, 4], 2)]
    assert found.owner_P.tolist() == [5, 1] and found.ids_K.tolist() == [1, 2, 3, 4, 5, 6]
    assert [p.id for p in found.drawn.problems] == ["p6", "p2"]
    # p2 is trained on although its samples agree: it has the signal of its group.
    assert found.advantage_K(np.array([0.5, 0.0])).tolist() == [0, 0, 0, 0, 0, 0.5]
    # The round before is not written to.
    assert before.owner_P.tolist() == [0, 1] and before.drawn.texts == drawn(1, 2).texts
    assert before.drawn.rollout.length_B.tolist() == [10, 11, 20, 21]


def test_a_group_found_in_an_earlier_round_is_not_replaced_again():
    draws = Draws(([3, 4], [MIXED, RIGHT]), ([5, 6], [MIXED, MIXED]))
    found = groups.replace_equal(first(WRONG, RIGHT), 2, draws)
    assert found.owner_P.tolist() == [2, 4]
    np.testing.assert_array_equal(
        found.advantage_K(np.array([0.1, 0.2])), [0, 0, 0.1, 0, 0.2, np.nan]
    )


def test_groups_all_right_stay_where_length_ranks_them():
    # Round 1: all wrong, all right, mixed. Only the first is replaced, by 5 (all right).
    first_round = [(WRONG, RIGHT, MIXED), ([4, 5, 6], [WRONG, RIGHT, MIXED])]
    drawn_first = groups.collect(
        drawn(1, 2, 3), judged(*first_round[0], ids=[1, 2, 3]), np.array([1, 2, 3]), all_right=True
    )
    assert drawn_first.useful_K.tolist() == [False, True, True]
    found = groups.replace_equal(drawn_first, 2, Draws(first_round[1]), all_right=True)
    assert found.owner_P.tolist() == [4, 1, 2]
    # 6 was useful, too, and found no room; 4 teaches nothing.
    np.testing.assert_array_equal(
        found.advantage_K(np.array([0.1, 0.2, 0.3])), [0, 0.2, 0.3, 0, 0.1, np.nan]
    )
    # Without the term both all-right groups go: 6 alone is left to take a place.
    found = groups.replace_equal(first(*first_round[0]), 1, Draws(first_round[1]))
    assert found.owner_P.tolist() == [5, 1, 2] and not found.useful_K[1]


def test_nothing_is_drawn_when_all_groups_differ_or_no_round_is_left():
    for verdicts, rounds in (((MIXED, DIFFERENT), 3), ((WRONG, MIXED), 0)):
        draws = Draws()
        assert groups.replace_equal(first(*verdicts), rounds, draws).owner_P.tolist() == [0, 1]
        assert draws.asked == []


def test_three_rounds_of_four_groups_of_four():
    # Right answers of four: the first draw has one group that differs (2), the second two, the
    # third two, of which there is room for one.
    right = [0, 2, 4, 0], [1, 0, 4, 3], [0, 1, 2, 0]
    verdicts = [[tuple(int(k < n) for k in range(4)) for n in counts] for counts in right]
    draws = Draws(([5, 6, 7, 8], verdicts[1]), ([9, 10, 11, 12], verdicts[2]))
    found = groups.replace_equal(first(*verdicts[0]), 2, draws)
    assert draws.asked == [([1, 2, 3, 4], 1), ([1, 2, 3, 4, 5, 6, 7, 8], 2)]
    trained = drawn(5, 2, 8, 10, samples=4)
    assert found.drawn.problems == trained.problems and found.drawn.prompts == trained.prompts
    assert found.drawn.texts == trained.texts and found.drawn.samples == 4
    np.testing.assert_array_equal(found.drawn.rollout.tokens_BR, trained.rollout.tokens_BR)
    assert found.judged.right_B.reshape(4, 4).sum(axis=1).tolist() == [1, 2, 3, 1]
    assert found.ids_K.tolist() == list(range(1, 13)) and found.owner_P.tolist() == [4, 1, 7, 9]
    # 11 differs and found no room: not measured.
    np.testing.assert_array_equal(
        found.advantage_K(np.array([0.4, 0.1, 0.7, 0.9])),
        [0, 0.1, 0, 0, 0.4, 0, 0, 0.7, 0, 0.9, np.nan, 0],
    )
    # 2√(p(1−p)) at p = 1/4 and 3/4 is √(3/4).
    want = np.sqrt([0, 1, 0, 0, 0.75, 0, 0, 0.75, 0, 0.75, 1, 0])
    np.testing.assert_allclose(found.correctness_K(), want)
