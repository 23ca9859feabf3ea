"""Batches are whole: an array that is left out, or needed and None, is refused."""

import dataclasses

import numpy as np
import pytest

from distill_jax.training.batch import (
    Advantages,
    PolicyBatch,
    ScoredRollout,
    needed,
    take_groups,
)

NAMES = {cls: [f.name for f in dataclasses.fields(cls)] for cls in (ScoredRollout, PolicyBatch)}


@pytest.mark.parametrize(("cls", "name"), [(cls, n) for cls in NAMES for n in NAMES[cls]])
def test_a_field_that_is_left_out_is_an_error(cls: type, name: str) -> None:
    every = dict.fromkeys(NAMES[cls])
    cls(**every)
    del every[name]
    with pytest.raises(TypeError, match=name):
        cls(**every)


def test_needed() -> None:
    array = np.zeros(2)
    assert needed(array, "reward_BR") is array
    with pytest.raises(ValueError, match="reward_BR is None; the algorithm needs it"):
        needed(None, "reward_BR")


def test_take_units_takes_every_array_and_leaves_none_alone() -> None:
    B, R = 4, 2
    grid_BR = np.arange(B * R, dtype=np.float32).reshape(B, R)
    batch = PolicyBatch(
        tokens_BT=np.arange(12).reshape(B, 3),
        prompts_PS=None,
        prompt_len_B=np.arange(B),
        targets_BR=10 + grid_BR,
        loss_mask_BR=20 + grid_BR,
        behaviour_logp_BR=30 + grid_BR,
        old_logp_BR=40 + grid_BR,
        ref_logp_BR=None,
        advantages=Advantages(50 + grid_BR, top_entropy_BR=60 + grid_BR),
    )
    got = take_groups(batch, np.array([3, 1]), count=B)
    assert got.tokens_BT.tolist() == [[9, 10, 11], [3, 4, 5]]
    assert got.prompt_len_B.tolist() == [3, 1]
    rows_BR = np.array([[6, 7], [2, 3]])
    found = (got.targets_BR, got.loss_mask_BR, got.behaviour_logp_BR, got.old_logp_BR)
    found += (got.advantages.advantage_BR, got.advantages.top_entropy_BR)
    for tens, array_BR in enumerate(found, start=1):
        np.testing.assert_array_equal(array_BR, 10 * tens + rows_BR)
    assert got.ref_logp_BR is got.advantages.return_BR is got.advantages.old_value_BR is None
    groups = dataclasses.replace(batch, prompts_PS=np.array([[1, 2], [3, 4]]))
    got = take_groups(groups, np.array([1, 0]), count=2)
    assert got.prompts_PS.tolist() == [[3, 4], [1, 2]]
    assert got.prompt_len_B.tolist() == [2, 3, 0, 1]
    np.testing.assert_array_equal(got.targets_BR, 10 + grid_BR[[2, 3, 0, 1]])
