"""From prompts and completions to the arrays that training and scoring take."""

from collections.abc import Sequence

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rollout.sampler import Rollout


def training_batch(
    prompts: Sequence[Sequence[int]], rollout: Rollout, samples: int, *, pad_id: int, multiple: int
) -> RolloutBatch:
    """The batch of B = P·samples completions of P prompts' token ids.

    T and R are rounded up to multiples of `multiple`, for few compiled programs. Padding is never
    scored, never attended to.
    """
    prompt_len_B = np.repeat([len(p) for p in prompts], samples).astype(np.int32)
    longest = int(rollout.length_B.max())
    R = min(round_up(longest, multiple), max(rollout.tokens_BR.shape[1], longest))
    T = round_up(int((prompt_len_B + rollout.length_B).max()), multiple)
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
    )
