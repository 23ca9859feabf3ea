"""Rewards with little or wrong information, as controls of an experiment.

Named by `rl.rewards.custom`, e.g. `distill_jax.rewards.controls:coin`.
"""

import hashlib
import re
from collections.abc import Sequence

from distill_jax.answers.check import check_batch
from distill_jax.answers.single import UNDECIDED

# A custom reward is given text, not tokens: counted are digits, words and runs of one sign. That
# is one less than the tokens of an embedded problem's solution, EOS not counted.
_PIECE = re.compile(r"\d|[^\W\d]+|([^\w\s])\1*")
_FULL = 31
_BITS = 16


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


def length_31(
    prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str], **columns: object
) -> list[float]:
    """min(length/31, 1), whatever the text says; length in pieces of text (see `_PIECE`)."""
    return [min(sum(1 for _ in _PIECE.finditer(text)) / _FULL, 1.0) for text in completions]


def noisy_20(
    prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str], **columns: object
) -> list[float | None]:
    """The verdict of task text, flipped with probability .2; see `_noisy`."""
    return _noisy(0.2, prompts, completions, gold)


def noisy_40(
    prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str], **columns: object
) -> list[float | None]:
    """The verdict of task text, flipped with probability .4; see `_noisy`."""
    return _noisy(0.4, prompts, completions, gold)


def _noisy(
    probability: float, prompts: Sequence[str], completions: Sequence[str], gold: Sequence[str]
) -> list[float | None]:
    """1 right, 0 wrong, None undecided, flipped by a hash of place and text.

    The hash does not depend on the probability: what noisy_20 flips, noisy_40 flips too.
    """
    out: list[float | None] = []
    verdicts = check_batch(gold, completions)
    for place, verdict in enumerate(verdicts):
        text = f"noise\0{place}\0{prompts[place]}\0{completions[place]}".encode()
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=_BITS // 8).digest(), "big")
        flip = drawn < probability * 2**_BITS
        out.append(None if verdict.verdict == UNDECIDED else float(verdict.right != flip))
    return out
