"""Rewards without information, as controls of an experiment.

Named by `rl.rewards.custom`, e.g. `distill_jax.rewards.controls:coin`.
"""

import hashlib
from collections.abc import Sequence


def coin(
    prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str], **columns: object
) -> list[float]:
    """1 or 0 by a hash of place and text, each with probability ½; equal in a resumed run.

    The place is hashed so that equal completions of a prompt do not get equal rewards.
    """
    out = []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        text = f"{place}\0{prompt}\0{completion}".encode()
        out.append(float(hashlib.blake2b(text, digest_size=1).digest()[0] & 1))
    return out
