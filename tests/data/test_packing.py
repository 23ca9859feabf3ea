"""Packed rows by hand; their number, lengths and padding on rows as long as GSM8K's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import DataError
from distill_jax.data import packing
from distill_jax.data.batching import batch_indices, dealt_indices, lengths_of
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths
from tests.data.gsm8k_like import lengths

# Of 5, 3, 7 and 4 tokens.
EXAMPLES = [
    Example([1, 2, 3], [4, 5]),
    Example([6], [7, 8]),
    Example([9, 10], [11, 12, 13, 14, 15]),
    Example([16], [17, 18, 19]),
]


def test_each_goes_to_the_row_with_the_fewest_tokens() -> None:
    # 7 to the first row, 5 to the second, 4 to the second (5 < 7), 3 to the first (7 < 9).
    assert packing.divide(lengths_of(EXAMPLES), 2) == [[2, 1], [0, 3]]
    assert packing.needed(lengths_of(EXAMPLES), 2, 1) == (10, 7)


def test_a_batch_by_hand() -> None:
    got = packing.pack(
        EXAMPLES, lengths_of(EXAMPLES), pad_id=0, rows=2, multiple=4, chosen=[PaddedLengths(12, 8)]
    )
    n = 13
    wanted = {
        "tokens_BT": [
            [9, 10, 11, 12, 13, 14, 15, 6, 7, 8, 0, 0],
            [1, 2, 3, 4, 5, 16, 17, 18, 19, 0, 0, 0],
        ],
        "segment_BT": [[1] * 7 + [2] * 3 + [0] * 2, [1] * 5 + [2] * 4 + [0] * 3],
        "targets_BR": [[11, 12, 13, 14, 15, 7, 8, 0], [4, 5, 17, 18, 19, 0, 0, 0]],
        "at_BR": [[2, 3, 4, 5, 6, 8, 9, n], [3, 4, 6, 7, 8, n, n, n]],
        "example_BR": [[2] * 5 + [1] * 2 + [0], [0, 0, 3, 3, 3, 0, 0, 0]],
        "loss_mask_BR": [[1] * 7 + [0], [1] * 5 + [0] * 3],
        "place_BE": [[0, 1, 1, 0], [1, 0, 0, 1]],
    }
    assert got.keys() == wanted.keys()
    for name, rows in wanted.items():
        np.testing.assert_array_equal(got[name], rows, err_msg=name)
        assert got[name].dtype == (np.float32 if name in ("loss_mask_BR", "place_BE") else np.int32)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=12), st.integers(1, 12))
def test_every_example_is_in_one_row_and_no_row_is_far_longer(sizes: list[int], rows: int) -> None:
    rows = min(rows, len(sizes))
    held = packing.divide(np.array([(size, 1) for size in sizes]), rows)
    assert sorted(sum(held, [])) == list(range(len(sizes)))
    longest = max(sum(sizes[i] for i in row) for row in held)
    # Graham's bound of any list: the mean row, and the longest example but its own share of that.
    assert longest <= sum(sizes) / rows + max(sizes) * (1 - 1 / rows) + 1e-9
    assert held == packing.divide(np.array([(size, 1) for size in sizes]), rows)


def planned(window: int, **how: int) -> packing.PackingPlan:
    found = lengths(7473)
    batches = [dealt_indices(0, step, 32, found[:, 0], window) for step in range(700)]
    return packing.plan(found, batches, **{"budget": 1024, "parts": 4, "multiple": 16, **how})


def test_padding_on_lengths_as_of_gsm8k() -> None:
    drawn, dealt = planned(1), planned(32)
    assert len(drawn.chosen) <= 2 and drawn.padding <= packing.ENOUGH
    assert len(dealt.chosen) == 1 and dealt.padding <= packing.ENOUGH
    for plan in (drawn, dealt):
        assert plan.rows % 4 == 0 and plan.chosen[-1].T <= 1024


def test_fewer_programs_only_up_to_the_padding_that_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "ENOUGH", 0.0)
    most = planned(1)
    assert len(most.chosen) == 6 and most.padding < planned(32).padding + 0.05
    monkeypatch.setattr(packing, "ENOUGH", 9.0)
    assert len(planned(1).chosen) == 1


def test_rows_divide_into_microbatches_of_all_devices() -> None:
    assert planned(1, parts=16).rows == 16
    # One example a row.
    assert planned(1, parts=32).rows == 32


def test_most_rows_by_hand() -> None:
    # Two of 496 in a row of 1024: 16 rows; one of 600: 32, the size of the batch.
    assert packing.most_rows(32, 496, budget=1024, parts=4) == 16
    assert packing.most_rows(32, 600, budget=1024, parts=4) == 32
    assert packing.most_rows(6, 100, budget=400, parts=3) == 3


def test_an_example_longer_than_a_row() -> None:
    found = lengths(64)
    longest = int(found[:, 0].max())
    with pytest.raises(DataError, match=f"packing=64 with an example of {longest} tokens.*raise"):
        packing.plan(found, [np.arange(64)], budget=64, parts=1, multiple=16)


def test_dealt_batches_hold_the_rows_of_their_window() -> None:
    length_N = lengths(300)[:, 0]
    batches = [dealt_indices(3, step, 8, length_N, 4) for step in range(8)]
    for number in range(2):
        whole = batch_indices(3, number, 32, 300)
        assert sorted(np.concatenate(batches[4 * number : 4 * number + 4])) == sorted(whole)
    tokens = np.array([length_N[index].sum() for index in batches])
    drawn = np.array([length_N[batch_indices(3, step, 8, 300)].sum() for step in range(8)])
    assert np.ptp(tokens[:4]) < 0.1 * np.ptp(drawn[:4])
    np.testing.assert_array_equal(dealt_indices(3, 5, 8, length_N, 1), batch_indices(3, 5, 8, 300))
