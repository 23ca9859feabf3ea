"""The rows that a teacher reads behind other prompts than the student's."""

from collections.abc import Mapping, Sequence

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.data.batching import right_padded


def with_prompts(
    batch: Mapping[str, np.ndarray],
    prompts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int,
) -> dict[str, np.ndarray]:
    """The batch with other prompts: the response tokens and their places in [B, R] stay.

    Args:
        batch: on the host, tokens_BT, prompt_len_B, response_len_B and targets_BR among others, and
            prompts_PS if set.
        prompts: token ids of each row's prompt, of any length from 1; with prompts_PS equal in the
            rows of a group.
        pad_id: fills the rows' ends.
        multiple: the new T is a multiple of it.

    Returns:
        The batch with new tokens_BT, prompt_len_B and, if there were such, prompts_PS, int32.
    """
    length_B, targets_BR = batch["response_len_B"], batch["targets_BR"]
    prompt_len_B = np.array([len(prompt) for prompt in prompts], np.int32)
    T = round_up(int((prompt_len_B + length_B).max()), multiple)
    tokens_BT = np.full((len(prompts), T), pad_id, np.int32)
    for row, (prompt, p, n) in enumerate(zip(prompts, prompt_len_B, length_B, strict=True)):
        tokens_BT[row, :p] = prompt
        tokens_BT[row, p : p + n] = targets_BR[row, :n]
    out = {**batch, "tokens_BT": tokens_BT, "prompt_len_B": prompt_len_B}
    if "prompts_PS" in batch:
        some = prompts[:: len(prompts) // len(batch["prompts_PS"])]
        width = round_up(int(prompt_len_B.max()), multiple)
        out["prompts_PS"] = right_padded(some, pad_id, width)
    return out
