"""From prompts and completions to the arrays that training and scoring take."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.rollout.sampler import Rollout

Batch = dict[str, np.ndarray]


def training_batch(
    prompts: Sequence[Sequence[int]],
    rollout: Rollout,
    samples: int,
    *,
    pad_id: int,
    multiple: int,
) -> Batch:
    """Compact rows, prompt ++ response ++ pad, and response-aligned arrays.

    Args:
        prompts: P prompts' token ids.
        rollout: B = P·samples completions, prompt-major.
        samples: G.
        pad_id: token of the padding; never scored, never attended to.
        multiple: T and R are rounded up to multiples of it, to limit the compiled programs.

    Returns:
        tokens_BT int32, prompt_len_B int32, response_len_B int32, response_mask_BR f32 (1 on
        sampled tokens, EOS included), targets_BR int32, ended_B bool, behaviour_logp_BR f32.
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
    return {
        "tokens_BT": tokens_BT,
        "prompt_len_B": prompt_len_B,
        "response_len_B": rollout.length_B.astype(np.int32),
        "response_mask_BR": rollout.mask_BR[:, :R],
        "targets_BR": rollout.tokens_BR[:, :R].astype(np.int32),
        "ended_B": rollout.ended_B,
        "behaviour_logp_BR": rollout.behaviour_logp_BR[:, :R],
    }


def take_rows(batch: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The batch of these rows, in this order."""
    return {name: leaf[rows] for name, leaf in batch.items()}
