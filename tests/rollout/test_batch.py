"""The batch of completions, by hand."""

import numpy as np

from distill_jax.data.padding import PaddedLengths
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Rollout


def rollout():
    # Two prompts × two samples, EOS = 9: rows 0 and 2 end, rows 1 and 3 are cut at 5.
    tokens = np.array([[7, 9, 0, 0, 0], [1, 2, 3, 4, 5], [9, 0, 0, 0, 0], [5, 4, 3, 2, 1]])
    length = np.array([2, 5, 1, 5], np.int32)
    logp = -np.arange(20, dtype=np.float32).reshape(4, 5) / 10
    return Rollout(tokens, length, np.array([True, False, True, False]), logp)


def test_rows_are_prompt_response_pad():
    batch = training_batch([[11, 12, 13], [14]], rollout(), 2, pad_id=0, multiple=4)
    assert batch.tokens_BT.tolist() == [
        [11, 12, 13, 7, 9, 0, 0, 0],
        [11, 12, 13, 1, 2, 3, 4, 5],
        [14, 9, 0, 0, 0, 0, 0, 0],
        [14, 5, 4, 3, 2, 1, 0, 0],
    ]
    assert batch.prompt_len_B.tolist() == [3, 3, 1, 1]
    assert batch.response_len_B.tolist() == [2, 5, 1, 5]
    # R: 5 would be rounded up to 8, but no answer may be longer than 5.
    np.testing.assert_array_equal(batch.targets_BR, rollout().tokens_BR)
    # EOS is a sampled token and is trained on.
    assert batch.response_mask_BR.tolist() == [
        [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1],
    ]  # fmt: skip
    assert batch.tokens_BT.dtype == batch.targets_BR.dtype == np.int32
    np.testing.assert_array_equal(batch.behaviour_logp_BR, rollout().behaviour_logp_BR)


def test_the_response_axis_shrinks_to_the_longest_answer():
    short = Rollout(*(leaf[[0, 2]] for leaf in rollout()))
    batch = training_batch([[11], [14]], short, 1, pad_id=0, multiple=2)
    assert batch.targets_BR.tolist() == [[7, 9], [9, 0]]
    assert batch.tokens_BT.tolist() == [[11, 7, 9, 0], [14, 9, 0, 0]]
    assert batch.behaviour_logp_BR.shape == (2, 2)
    assert batch.ended_B.tolist() == [True, True]


def test_prompts_by_themselves():
    prompts, how = [[11, 12, 13], [14]], {"pad_id": 0, "shared": True}
    batch = training_batch(prompts, rollout(), 2, multiple=2, **how)
    assert batch.prompts_PS.tolist() == [[11, 12, 13, 0], [14, 0, 0, 0]]
    assert batch.tokens_BT.shape == (4, 10) and batch.prompt_len_B.tolist() == [3, 3, 1, 1]
    assert training_batch(prompts, rollout(), 2, pad_id=0, multiple=2).prompts_PS is None
    # The first lengths hold the longest row (8), but not prompts of 4 with responses of 5.
    chosen = (PaddedLengths(8, 6), PaddedLengths(11, 5))
    batch = training_batch(prompts, rollout(), 2, multiple=1, chosen=chosen, **how)
    assert batch.prompts_PS.shape == (2, 6) and batch.targets_BR.shape == (4, 5)
    # Nor do these, where the longest row has the short prompt: 1 + 5 tokens.
    short_first = Rollout(*(leaf[[0, 2, 1, 3]] for leaf in rollout()))
    chosen = (PaddedLengths(6, 5), PaddedLengths(8, 5))
    batch = training_batch(prompts, short_first, 2, multiple=1, chosen=chosen, **how)
    assert batch.prompts_PS.shape == (2, 3) and batch.targets_BR.shape == (4, 5)
