"""How long the cache is, and which rows stay: chosen on the host between segments."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distill_jax.core.batching import filled
from distill_jax.rollout.sampling_settings import SamplingSettings


@dataclass
class Slots:
    """The number of slots that each row of a draw has.

    Attributes:
        prompt: slots of a padded prompt.
        most: tokens that a row may draw.
        bucket: slots for tokens that a row begins with; doubled when they are full.
        few: begin with twice as many, and give rows that stay after others were dropped all `most`,
            so that fewer programs are compiled.
        shared: the prompt is not in the row's cache.
    """

    prompt: int
    most: int
    bucket: int
    few: bool
    shared: bool

    def __post_init__(self) -> None:
        self.own = grown(self.bucket * (2 if self.few else 1), 1, self.most)

    @classmethod
    def of(cls, bucket: int, prompt: int, settings: SamplingSettings, samples: int) -> "Slots":
        """Those of a draw of so many samples of each prompt; bucket: of the sampler's programs."""
        few = settings.row_counts > 0
        return cls(prompt, settings.max_new_tokens, bucket, few, shared=samples > 1)

    @property
    def first(self) -> int:
        """The slot of token 0."""
        return 0 if self.shared else self.prompt

    @property
    def total(self) -> int:
        """Slots of a row."""
        return self.first + self.own

    def hold(self, tokens: int) -> bool:
        """Grows to hold so many tokens; whether that took more slots."""
        before, self.own = self.own, grown(self.own, tokens, self.most)
        return self.own > before

    def apart(self, tokens: int) -> int:
        """Makes room for the prompt and so many tokens in each row; the new number of slots."""
        self.shared = False
        self.own = self.most if self.few else grown(self.own, tokens, self.most)
        return self.total


def grown(slots: int, tokens: int, most: int) -> int:
    """`slots` doubled until they hold so many tokens, at most `most`.

    Where less than a third of the result would be left to grow, it is `most` at once: each number
    of slots needs another program.
    """
    while slots < tokens:
        slots *= 2
    return most if 4 * slots > 3 * most else slots


class Kept(NamedTuple):
    """The rows of a smaller batch.

    Attributes:
        row_N: int32, their places in the batch before.
        filler_N: bool, rows that are there only to fill the batch.
        apart: no row moves to another device.
    """

    row_N: np.ndarray
    filler_N: np.ndarray
    apart: bool


def kept(live: np.ndarray, current: int, size: int, parts: int) -> Kept:
    """`size` of `current` rows with the live ones.

    parts: into so many equal parts, one after the other, rows are split over devices. If the live
    rows of each part fit into an equal part of `size`, they stay there. Else, and with 1 part, the
    live rows come first, in their order.
    """
    row_N = filled(live, size).astype(np.int32)
    every = Kept(row_N, np.arange(size) >= len(live), False)
    if parts == 1:
        return every
    own, room = current // parts, size // parts
    of_part = [live[live // own == part] for part in range(parts)]
    if max(map(len, of_part)) > room:
        return every
    # A part that has no live row is filled with its first one.
    rows = [filled(x if len(x) else [i * own], room) for i, x in enumerate(of_part)]
    filler = [np.arange(room) >= len(x) for x in of_part]
    return Kept(np.concatenate(rows).astype(np.int32), np.concatenate(filler), True)
