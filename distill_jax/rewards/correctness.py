"""Verified correctness: the answer in a completion against the gold answer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distill_jax import answers


class Correctness(NamedTuple):
    """reward_B f32 (NaN where undecided: not applicable), right_B bool, undecided_B bool."""

    reward_B: np.ndarray
    right_B: np.ndarray
    undecided_B: np.ndarray


def correctness(
    golds: Sequence[str], completions: Sequence[str], *, right: float, wrong: float
) -> Correctness:
    """Reward of each completion: `right`, `wrong`, or NaN when the checker cannot tell.

    Args:
        golds: B gold answers.
        completions: B texts, special tokens removed.
        right: reward of a right answer.
        wrong: reward of a wrong or missing answer.
    """
    verdicts = [v.verdict for v in answers.check_batch(golds, completions)]
    right_B = np.array([v == "right" for v in verdicts], bool)
    undecided_B = np.array([v == "undecided" for v in verdicts], bool)
    reward_B = np.where(right_B, right, wrong).astype(np.float32)
    reward_B[undecided_B] = np.nan
    return Correctness(reward_B, right_B, undecided_B)
