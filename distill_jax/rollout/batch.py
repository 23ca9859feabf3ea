"""From prompts and completions to the arrays that training and scoring take."""

from collections.abc import Sequence

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.data import padding
from distill_jax.data.batching import right_padded
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rollout.sampler import Rollout


def training_batch(
    prompts: Sequence[Sequence[int]],
    rollout: Rollout,
    samples: int,
    *,
    pad_id: int,
    multiple: int,
    chosen: Sequence[PaddedLengths] = (),
    shared: bool = False,
) -> RolloutBatch:
    """The batch of B = P·samples completions of P prompts' token ids.

    T and R are rounded up to multiples of `multiple`, or are the cheapest of the chosen lengths
    that holds those (`padding.smallest`), for few compiled programs; R ends with the rollout's
    columns. Padding is never scored, never attended to.

    shared: with prompts_PS [P, S]; T is then S + R, of the chosen lengths, too.

    Raises:
        DataError: none of the chosen lengths holds the batch.
    """
    prompt_len_B = np.repeat([len(p) for p in prompts], samples).astype(np.int32)
    longest = int(rollout.length_B.max())
    S, R = round_up(max(map(len, prompts)), multiple), round_up(longest, multiple)
    T = S + R if shared else round_up(int((prompt_len_B + rollout.length_B).max()), multiple)
    if chosen:
        T, R = padding.smallest(PaddedLengths(T, R), chosen, separate=shared)
        S = T - R
    R = min(R, max(rollout.tokens_BR.shape[1], longest))
    tokens_BT = np.full((len(prompt_len_B), T), pad_id, np.int32)
    for row in range(len(prompt_len_B)):
        prompt, n = prompts[row // samples], int(rollout.length_B[row])
        tokens_BT[row, : len(prompt)] = prompt
        tokens_BT[row, len(prompt) : len(prompt) + n] = rollout.tokens_BR[row, :n]
    return RolloutBatch(
        tokens_BT=tokens_BT,
        prompt_len_B=prompt_len_B,
        response_len_B=rollout.length_B.astype(np.int32),
        response_mask_BR=rollout.mask_BR[:, :R],
        targets_BR=rollout.tokens_BR[:, :R].astype(np.int32),
        ended_B=rollout.ended_B,
        behaviour_logp_BR=rollout.behaviour_logp_BR[:, :R],
        prompts_PS=right_padded(prompts, pad_id, S) if shared else None,
    )
