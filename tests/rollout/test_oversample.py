"""Which of too many completions are kept: by hand, by frequency, and everything moves with them."""

import numpy as np
import pytest

from distill_jax.rollout import oversample
from distill_jax.rollout.oversample import FAULTS, Seen, choose, keep, repeats
from distill_jax.tasks import Judged
from tests.rollout.test_groups import drawn

# r right, w wrong, u undecided
KINDS = {"r": 1, "w": 0, "u": -1}


def chosen(kinds, samples, *, seed=0, faults=None):
    kind_N = np.array([KINDS[one] for one in kinds])
    fault_N = np.zeros(len(kinds)) if faults is None else np.array(faults)
    rows = choose(kind_N, fault_N, np.random.default_rng(seed).random(len(kinds)), samples)
    assert len(rows) == samples and (np.diff(rows) > 0).all()
    return "".join(kinds[row] for row in rows), rows


@pytest.mark.parametrize(
    ("kinds", "samples", "wanted"),
    [
        ("r" * 12 + "w" * 4, 8, (6, 2, 0)),  # in their shares
        ("r" * 10 + "w" * 6, 8, (5, 3, 0)),
        ("r" * 15 + "w", 8, (7, 1, 0)),  # of one there is only one
        ("r" * 13 + "w" * 3, 8, (6, 2, 0)),  # 6.5 would be 7: two wrong ones stay
        ("r" + "w" * 15, 8, (1, 7, 0)),
        ("rr" + "w" * 14, 8, (2, 6, 0)),  # its share is 1: two right ones stay
        ("r" * 16, 8, (8, 0, 0)),
        ("w" * 16, 8, (0, 8, 0)),
        ("rrr" + "w" * 3 + "u" * 10, 8, (3, 3, 2)),  # undecided ones fill up
        ("r" * 6 + "w" * 2 + "u" * 8, 8, (6, 2, 0)),
        ("u" * 16, 8, (0, 0, 8)),
        ("rw" * 2, 4, (2, 2, 0)),
        ("r" * 7 + "w", 4, (3, 1, 0)),
    ],
)
def test_how_many_of_each(kinds, samples, wanted):
    for seed in range(5):
        found, _ = chosen(kinds, samples, seed=seed)
        assert tuple(found.count(kind) for kind in "rwu") == wanted


def test_every_count_is_possible():
    for right in range(9):
        for wrong in range(9 - right):
            found, _ = chosen("r" * right + "w" * wrong + "u" * (8 - right - wrong), 4)
            for kind, there in (("r", right), ("w", wrong)):
                assert found.count(kind) >= min(2, there)


def test_right_ones_with_faults_are_kept_less_often_and_wrong_ones_evenly():
    # Of 6 right ones 4 stay, three of them without fault: how often is each of the others there?
    kinds, faults = "r" * 6 + "w" * 6, [0, 0, 0, 1, 1, 1] + [0, 0, 0, 9, 9, 9]
    count = np.zeros(12)
    for seed in range(2000):
        count[chosen(kinds, 8, seed=seed, faults=faults)[1]] += 1
    share = count / 2000
    # Wrong ones: 4 of 6 each, whatever is said of their faults.
    np.testing.assert_allclose(share[6:], 2 / 3, atol=0.05)
    # The first draw of four takes one of the faultless with 30/33, and so on: worked by recursion.
    left = {(3, 3, 4): 1.0}
    kept = [0.0, 0.0]
    while left:
        (clean, faulty, draws), p = left.popitem()
        if not draws:
            continue
        total = clean * 1.0 + faulty * 0.1
        for which, weight in ((0, clean * 1.0), (1, faulty * 0.1)):
            if weight:
                q = p * weight / total
                kept[which] += q / 3
                after = (clean - (which == 0), faulty - (which == 1), draws - 1)
                left[after] = left.get(after, 0.0) + q
    np.testing.assert_allclose(share[:3], kept[0], atol=0.03)
    np.testing.assert_allclose(share[3:6], kept[1], atol=0.03)


def many(P=3, N=8):
    """Groups of N; in the second all are wrong but one, in the third all right."""
    found = drawn(*range(1, P + 1), samples=N)
    right_B = np.array([1, 0] * 4 + [1] + [0] * 7 + [1] * 8, bool)
    texts = [f"so the answer is #### {n}" for n in range(P * N)]
    details = [{"number": n} for n in range(P * N)]
    return found._replace(texts=texts), Judged(right_B, np.zeros(P * N, bool), details, texts)


def test_everything_of_a_completion_moves_with_it():
    found, judged = many()
    kept = keep(found, judged, 4, seed=1, step=2, number=0)
    rows = [one["number"] for one in kept.judged.details]
    assert len(rows) == 12 and [row // 8 for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert kept.drawn.samples == 4 and kept.drawn.problems == found.problems
    assert kept.drawn.prompts == found.prompts
    assert kept.drawn.texts == [found.texts[row] for row in rows]
    for got_B, all_B in zip(kept.drawn.rollout, found.rollout, strict=True):
        np.testing.assert_array_equal(got_B, all_B[rows])
        assert got_B.dtype == all_B.dtype
    np.testing.assert_array_equal(kept.judged.right_B, judged.right_B[rows])
    assert kept.judged.right_B.reshape(3, 4).sum(axis=1).tolist() == [2, 1, 4]


def test_it_depends_on_seed_step_and_draw_alone():
    found, judged = many()

    def rows(seed, step, number):
        kept = keep(found, judged, 4, seed=seed, step=step, number=number)
        return [one["number"] for one in kept.judged.details]

    assert rows(1, 2, 0) == rows(1, 2, 0)
    assert len({tuple(rows(*how)) for how in ((1, 2, 0), (2, 2, 0), (1, 3, 0), (1, 2, 1))}) == 4


def test_figures():
    found, judged = many()
    draws = [keep(found, judged, 4, seed=1, step=2, number=n) for n in range(2)]
    figures = oversample.total([draw.counts for draw in draws])
    # Of 13 right and 11 wrong ones in each draw 7 and 5 stay.
    wanted = {"kept_right": 14, "kept_wrong": 10, "kept_undecided": 0, "accuracy": 13 / 24}
    wanted |= {"dropped_right": 12, "dropped_wrong": 12, "dropped_undecided": 0}
    assert {name: figures[f"oversample/{name}"] for name in wanted} == wanted
    lengths = [draw.drawn.rollout.length_B.sum() for draw in draws]
    total = 2 * found.rollout.length_B.sum()
    assert figures["oversample/dropped_tokens"] == total - sum(lengths)
    # Odd numbers have ended (test_groups.py): the fault of half of the group that is all right.
    cut_off = [not ended for ended in found.rollout.ended_B]
    everything = 2 * sum(c for c, r in zip(cut_off, judged.right_B, strict=True) if r)
    there = 14 * figures["oversample/faults_kept"] + 12 * figures["oversample/faults_dropped"]
    assert there == pytest.approx(everything)
    assert oversample.total([]) == {}


def test_faults_by_hand():
    # a b c d | b c d a | c d a b | d a b c | a b c d: the last of five runs of four repeats
    assert repeats("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeats("a b c") == repeats("") == repeats("one two three four five") == 0.0
    seen = Seen("so #### 4", ended=True, stated="4", void=False)
    values = {name: fault(seen) for name, fault in FAULTS.items()}
    assert values == {"cut_off": 0.0, "not_stated": 0.0, "repeats": 0.0, "void": 0.0}
    seen = Seen("so a a a a a", ended=False, stated=None, void=True)
    values = {name: fault(seen) for name, fault in FAULTS.items()}
    # so a a a | a a a a | a a a a: one of three
    third = pytest.approx(1 / 3)
    assert values == {"cut_off": 1.0, "not_stated": 1.0, "repeats": third, "void": 1.0}


def test_the_answer_of_a_program_is_what_it_was_judged_by():
    """A text that also states one is no better: what stands around a program has no say."""
    found = drawn(1, samples=8)
    texts = ["print(4) is it #### 4", "print(4) is it"] * 4
    judged = Judged(np.ones(8, bool), np.zeros(8, bool), [{}] * 8, ["4"] * 8)
    ended = found.rollout._replace(ended_B=np.ones(8, bool))
    found = found._replace(texts=texts, rollout=ended)
    kept = keep(found, judged, 4, seed=1, step=2, number=0)
    assert kept.counts["faults_kept"] == kept.counts["faults_dropped"] == 0.0


def test_void_completions_are_kept_last():
    """They leave the loss: a group of them would train on nothing."""
    found, judged = many(P=1)
    judged = judged._replace(right_B=np.ones(8, bool))
    void_B = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    count = np.zeros(8)
    for step in range(300):
        kept = keep(found, judged, 4, seed=1, step=step, number=0, void_B=void_B)
        count[[one["number"] for one in kept.judged.details]] += 1
    assert count[:4].sum() < 0.5 * count[4:].sum()
