"""Slots of the cache and rows that stay, chosen on the host between segments."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import filled
from distill_jax.rollout.sampling_settings import SamplingSettings


@dataclass
class Slots:
    """The slots of the rows of one draw.

    Attributes:
        prompt: of prompts as they are padded.
        most: tokens that a row may draw.
        bucket: for tokens at first; doubled when they are full. 0: `most` at once.
        few: rows that stay when others have left have room for all tokens at once, so that fewer
            programs are compiled.
        shared: prompts take no slots of the rows.
    """

    prompt: int
    most: int
    bucket: int
    few: bool
    shared: bool

    def __post_init__(self) -> None:
        self.own = self.most
        if self.bucket:
            self.own = grown(self.bucket * (2 if self.few else 1), 1, self.most)

    @classmethod
    def of(cls, bucket: int, prompt: int, settings: SamplingSettings, samples: int) -> "Slots":
        """Those of a draw of so many samples of each prompt; bucket: of the sampler's programs."""
        few, shared = settings.row_counts > 0, bucket > 0 and samples > 1
        return cls(prompt, settings.max_new_tokens, bucket, few, shared)

    @property
    def first(self) -> int:
        """The slot of token 0."""
        return 0 if self.shared else self.prompt

    @property
    def total(self) -> int:
        """Slots of a row."""
        return self.first + self.own

    def hold(self, tokens: int) -> bool:
        """Whether there must be more for so many tokens; counts them as made."""
        before, self.own = self.own, grown(self.own, tokens, self.most)
        return self.own > before

    def apart(self, tokens: int) -> int:
        """Slots of rows that stay, which hold their prompts and soon so many tokens."""
        self.shared = False
        self.own = self.most if self.few else grown(self.own, tokens, self.most)
        return self.total


def grown(slots: int, tokens: int, most: int) -> int:
    """`slots` doubled until they hold so many tokens, at most `most`.

    What would leave less than a third to grow is `most`, too: each number is a program.
    """
    while slots < tokens:
        slots *= 2
    return most if 4 * slots > 3 * most else slots


class Kept(NamedTuple):
    """Rows that stay, and which of them only fill up; whether each device keeps rows of its own."""

    row_N: np.ndarray
    filler_N: np.ndarray
    apart: bool


def kept(live: np.ndarray, current: int, size: int, parts: int) -> Kept:
    """`size` of `current` rows with the live ones.

    parts: devices (or groups of them) that rows are split over in order. Where the live rows of
    each fit into its part of `size`, it keeps those; with 1 part they are the live ones in order.
    """
    row_N = filled(live, size).astype(np.int32)
    every = Kept(row_N, np.arange(size) >= len(live), False)
    if parts == 1:
        return every
    own, room = current // parts, size // parts
    of_part = [live[live // own == part] for part in range(parts)]
    if max(map(len, of_part)) > room:
        return every
    # A part without live rows fills up with any of its own.
    rows = [filled(x if len(x) else [i * own], room) for i, x in enumerate(of_part)]
    filler = [np.arange(room) >= len(x) for x in of_part]
    return Kept(np.concatenate(rows).astype(np.int32), np.concatenate(filler), True)
