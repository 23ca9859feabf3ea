"""The few lengths of a stage's batches: by hand, against every other choice, and on lengths as of
GSM8K."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.batching import round_up
from distill_jax.core.errors import DataError
from distill_jax.data import padding
from distill_jax.data.batching import batch_indices, lengths_of, pack_examples, windowed_indices
from distill_jax.data.chat import Example
from distill_jax.data.padding import LIMIT, PaddedLengths, choose, of_drawn, smallest
from tests.data.gsm8k_like import lengths


def positions(counts: dict[PaddedLengths, int], chosen: tuple[PaddedLengths, ...]) -> float:
    """What the batches cost, each in the cheapest of the lengths that hold it."""
    total = 0.0
    for one, count in counts.items():
        fit = [8 * T + R for T, R in chosen if one.T <= T and one.R <= R]
        total += count * min(fit, default=np.inf)
    return total


def test_a_choice_by_hand() -> None:
    # Two runs. (16)(32, 48): 4·(8·16 + 8) + 5·(8·48 + 24) = 2584; (16, 32)(48): 5·(8·32 + 16) +
    # 4·408 = 2992; one run of all: 9·408.
    counts = {PaddedLengths(16, 8): 4, PaddedLengths(32, 16): 1, PaddedLengths(48, 24): 4}
    assert choose(counts, limit=2) == ((16, 8), (48, 24))
    # 1·136 + 8·408 = 3400 against 5·272 + 4·408 = 2992, with the first two exchanged.
    counts = {PaddedLengths(16, 8): 1, PaddedLengths(32, 16): 4, PaddedLengths(48, 24): 4}
    assert choose(counts, limit=2) == ((32, 16), (48, 24))
    assert choose(counts, limit=1) == ((48, 24),)


def test_a_run_is_padded_to_its_longest_response() -> None:
    counts = {PaddedLengths(16, 16): 9, PaddedLengths(32, 31): 1, PaddedLengths(33, 8): 9}
    assert choose(counts, limit=2) == ((16, 16), (33, 31))


def test_few_lengths_stay_as_they_are() -> None:
    counts = {PaddedLengths(T, R): 1 for T, R in ((96, 64), (80, 48), (96, 48))}
    assert choose(counts) == ((80, 48), (96, 48), (96, 64))


pair = st.builds(PaddedLengths, st.integers(1, 12), st.integers(1, 6))
counted = st.dictionaries(pair, st.integers(0, 9), min_size=1, max_size=7)


@given(counted, st.integers(1, 3))
@settings(deadline=None)
def test_no_other_cut_is_cheaper(counts: dict[PaddedLengths, int], limit: int) -> None:
    needed, best = sorted(counts), np.inf
    for size in range(min(limit, len(needed))):
        for inner in itertools.combinations(range(1, len(needed)), size):
            cost = 0
            for start, end in itertools.pairwise([0, *inner, len(needed)]):
                run = needed[start:end]
                T, R = np.max(run, axis=0)
                cost += sum(counts[one] for one in run) * (8 * T + R)
            best = min(best, cost)
    chosen = choose(counts, limit=limit)
    assert len(chosen) <= limit or len(needed) <= limit
    assert chosen == tuple(sorted(chosen))
    assert positions(counts, chosen) <= best
    for one in counts:  # also one that no known batch needs
        by = smallest(one, chosen)
        assert by.T >= one.T and by.R >= one.R
        assert positions({one: 1}, chosen) == 8 * by.T + by.R


@given(
    st.sets(st.integers(1, 12), min_size=1, max_size=6),
    st.lists(st.integers(1, 6), min_size=6, max_size=6),
    st.lists(st.integers(1, 9), min_size=6, max_size=6),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=50)
def test_no_other_lengths_are_cheaper_where_longer_rows_have_longer_responses(
    rows: set[int], responses: list[int], count: list[int], limit: int
) -> None:
    some = zip(sorted(rows), sorted(responses), count, strict=False)
    counts = {PaddedLengths(T, R): number for T, R, number in some}
    grid = [PaddedLengths(T, R) for T in rows for R in {one.R for one in counts}]
    every = itertools.combinations(grid, min(limit, len(grid)))
    assert positions(counts, choose(counts, limit=limit)) == min(
        positions(counts, made) for made in every
    )


def test_the_smallest_that_holds_a_batch() -> None:
    chosen = (PaddedLengths(16, 8), PaddedLengths(32, 8), PaddedLengths(32, 16))
    assert smallest(PaddedLengths(16, 8), chosen) == (16, 8)
    assert smallest(PaddedLengths(16, 9), chosen) == (32, 16)
    assert smallest(PaddedLengths(17, 1), chosen) == (32, 8)
    with pytest.raises(DataError, match=r"rows of 33 .*wanted: at most one of .*\(32, 16\)"):
        smallest(PaddedLengths(33, 8), chosen)
    # A prompt of 20 columns with a response of 8 fits into rows of 32, but not behind 16.
    assert smallest(PaddedLengths(28, 8), chosen, separate=True) == (32, 8)
    with pytest.raises(DataError):
        smallest(PaddedLengths(29, 9), chosen, separate=True)


def test_rows_are_packed_into_the_smallest_of_the_lengths() -> None:
    rows = [Example([5, 6], [7, 8, 9]), Example([5], [9])]
    np.testing.assert_array_equal(lengths_of(rows), [[5, 3], [2, 1]])
    chosen = (PaddedLengths(6, 2), PaddedLengths(7, 4), PaddedLengths(9, 9))
    packed = pack_examples(rows, pad_id=0, multiple=1, chosen=chosen)
    np.testing.assert_array_equal(packed["tokens_BT"], [[5, 6, 7, 8, 9, 0, 0], [5, 9] + [0] * 5])
    np.testing.assert_array_equal(packed["targets_BR"], [[7, 8, 9, 0], [9, 0, 0, 0]])
    np.testing.assert_array_equal(packed["loss_mask_BR"], [[1, 1, 1, 0], [1, 0, 0, 0]])
    with pytest.raises(DataError, match="rows of 5 and responses of 3 tokens"):
        pack_examples(rows, pad_id=0, multiple=1, chosen=chosen[:1])


def test_lengths_of_drawn_responses_by_hand() -> None:
    # Responses of 1..4 behind prompts of 5..9: rows of 6..13; of 5..7: rows of 10..16.
    few = ((8, 4), (12, 4), (12, 8), (16, 4), (16, 8))
    assert of_drawn(np.array([5, 9, 9]), 7, multiple=4) == few
    # Halves of 7: 4, 7; the longest prompt counts in the last one alone.
    prompt_N = np.array([5] * 98 + [6, 9])
    assert of_drawn(prompt_N, 7, multiple=1, limit=3) == ((9, 4), (12, 7), (16, 7))
    assert of_drawn(prompt_N, 7, multiple=1, limit=1) == ((16, 7),)
    # Each padded by itself: prompts of 8 or 12, responses of 4 or 8.
    separate = ((12, 4), (16, 4), (16, 8), (20, 8))
    assert of_drawn(np.array([5, 9, 9]), 7, multiple=4, separate=True) == separate
    assert of_drawn(prompt_N, 7, multiple=4, limit=3, separate=True) == ((12, 4), (16, 8), (20, 8))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(1, 6),
    st.booleans(),
)
@settings(deadline=None)
def test_every_batch_of_drawn_responses_fits(
    rows: list[tuple[int, int]], multiple: int, limit: int, separate: bool
) -> None:
    prompt_N, response_N = np.array(rows).T
    chosen = of_drawn(prompt_N, 30, multiple=multiple, limit=limit, separate=separate)
    assert len(chosen) <= limit and chosen == tuple(sorted(chosen))
    lengths_N2 = np.stack([prompt_N + response_N, response_N], axis=1)
    for size in range(1, len(rows) + 1):
        needed = padding.padded_lengths(lengths_N2[:size], multiple)
        if separate:
            prompt = round_up(int(prompt_N[:size].max()), multiple)
            needed = padding.PaddedLengths(prompt + needed.R, needed.R)
        found = smallest(needed, chosen, separate=separate)
        assert found.T >= needed.T and found.R >= needed.R
        assert not separate or found.T - found.R >= needed.T - needed.R
        many = of_drawn(prompt_N, 30, multiple=multiple, limit=10**6, separate=separate)
        # Where there are few, nothing changes.
        assert smallest(needed, many, separate=separate) == needed


def test_a_plan_by_hand() -> None:
    lengths_N2 = np.array([[4, 2], [6, 2], [9, 3], [30, 20]])
    batches = [np.array([0, 1]), np.array([1, 2]), np.array([0, 1])]
    found = padding.plan(lengths_N2, batches, multiple=4)
    # Rows of 10 tokens in 2·8 places, of 15 in 2·12, of 10 in 2·8: 56/35.
    assert found == ((((8, 4), (12, 4))), 2, pytest.approx(0.6), pytest.approx(0.6))
    # Where other batches may come, the longest row has a place.
    assert padding.plan(lengths_N2, batches, multiple=4, known=False).chosen[-1] == (32, 20)


def test_more_batches_than_are_counted_leave_a_place_for_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(padding, "COUNTED", 2)
    lengths_N2, batches = np.array([[4, 2], [30, 20]]), [np.array([0])] * 2
    assert padding.plan(lengths_N2, batches, multiple=4).chosen == ((4, 4),)
    longer = [*batches, np.array([1])]
    assert padding.plan(lengths_N2, longer, multiple=4).chosen == ((4, 4), (32, 20))


def test_lengths_as_of_gsm8k_need_six_programs() -> None:
    lengths_N2 = lengths(7473)
    batches = [batch_indices(0, step, 32, len(lengths_N2)) for step in range(700)]
    found = padding.plan(lengths_N2, batches, multiple=16)
    assert found.needed > 50  # the lengths are as many as those of GSM8K
    assert len(found.chosen) <= LIMIT == 6
    # A tenth more positions than with all lengths, and not twice as many.
    assert found.padding_before < found.padding < 1.1 * found.padding_before + 0.1


def test_rows_sorted_in_a_window_of_steps_are_the_same_rows_with_less_padding() -> None:
    length_N = lengths(500)[:, 0]

    def drawn(window: int) -> list[np.ndarray]:
        return [windowed_indices(3, step, 8, length_N, window) for step in range(40)]

    plain, in_windows = drawn(1), drawn(10)
    for step, index in enumerate(plain):
        np.testing.assert_array_equal(index, batch_indices(3, step, 8, 500))
    for first in range(0, 40, 10):
        assert Counter(np.concatenate(plain[first : first + 10]).tolist()) == Counter(
            np.concatenate(in_windows[first : first + 10]).tolist()
        )
    most = [sum(length_N[index].max() for index in some) for some in (plain, in_windows)]
    assert most[1] < 0.75 * most[0]
    # Short batches do not come first in every window, and a step needs no other one.
    shortest = [
        int(np.argmin([length_N[index].max() for index in in_windows[first : first + 10]]))
        for first in range(0, 40, 10)
    ]
    assert len(set(shortest)) > 1
    for step in (29, 3, 17):
        again = windowed_indices(3, step, 8, length_N, 10)
        np.testing.assert_array_equal(again, in_windows[step])
