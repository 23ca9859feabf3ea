"""Slot refill: when a completion ends, its row of the batch takes the next one that waits.

Each row counts its own tokens and writes to its own slot of the cache. So its keys lie in the order
that `Sampler.generate` uses: first the prompt's, then the completion's. One write slot for all rows
would be simpler, but another order of the keys changes the last bits of sums over them. Between
segments the host chooses the rows that begin. Prompts are prefilled a few at a time; their samples
wait, with the prompt's keys, until rows are free.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.models.cache import KVCache
from distill_jax.rollout import limits
from distill_jax.rollout.compiled import Carry, Programs
from distill_jax.rollout.completions import Rollout
from distill_jax.rollout.limits import Stop
from distill_jax.rollout.sampling_settings import SamplingSettings

# Prompts are prefilled by one for about so many rows, for the keys of those that wait take memory,
# but by about so many tokens at least: XLA's CPU programs for fewer have other last bits.
_SHARE, _TOKENS = 4, 1024
# From so many batches on refilled rows decode fewer rows × steps than batches that shrink, for a
# stream keeps all its rows to its end: where batches have one or two sizes; where they have more
# (docs/benchmarks.md).
FROM = 4, 16


def pays(batches: int, settings: SamplingSettings, *, alone: bool = False) -> bool:
    """Whether refilled rows decode less than so many batches that shrink as the settings say.

    alone: prompts have one sample, so that none is shared: with one or two row_counts the
    programs of evaluation, whose rows are refilled, then serve any number of batches.
    """
    few, many = FROM
    if not 0 < settings.row_counts <= 2:
        return batches >= many
    return alone or batches >= few


class Sizes(NamedTuple):
    """Prompts that are prefilled together; the batch has `repeats` rows for each of them."""

    prompts: int
    repeats: int

    @property
    def rows(self) -> int:
        """Of the batch, which decodes."""
        return self.prompts * self.repeats


def sizes_of(rows: int, samples: int, widest: int, shards: int) -> Sizes:
    """The sizes of a draw.

    Args:
        rows: completions that are to be decoded at a time, at least.
        samples: of each prompt.
        widest: padded tokens of the widest prompt, which a resumed draw has, too: numbers of rows
            change the last bits.
        shards: parts of the mesh that a batch is split into.
    """
    size = min(-(-rows // samples), max(-(-rows // _SHARE), -(-_TOKENS // widest)))
    # The rows are a multiple of a chunk's prompts, for they begin as repeats of one.
    repeats = -(-rows // round_up(size, shards))
    return Sizes(round_up(-(-rows // repeats), shards), repeats)


class Part(NamedTuple):
    """Prompts whose completions are returned together; fields as `Sampler.generate` takes them."""

    prompts: Sequence[Sequence[int]]
    prompt_ids: Sequence[int]
    stops: Sequence[Stop] | None = None
    rooms: Sequence[int] | None = None


class _Begun:
    """What has been drawn of a part whose prompts are being decoded."""

    def __init__(self, part: Part, room_P: np.ndarray, samples: int, steps: int, pad_id: int):
        self.part, self.samples = part, samples
        self.room_B = np.repeat(room_P, samples)
        self.left = len(self.room_B)
        self.tokens_BR = np.full((self.left, steps), pad_id, np.int32)
        self.logp_BR = np.zeros((self.left, steps), np.float32)

    def put(self, row: int, start: int, tokens: np.ndarray, logp: np.ndarray, eos_id: int) -> bool:
        """Takes what a completion drew from token `start` on; whether it has ended."""
        stop = min(start + len(tokens), self.tokens_BR.shape[1])
        self.tokens_BR[row, start:stop] = tokens[: stop - start]
        self.logp_BR[row, start:stop] = logp[: stop - start]
        if self.part.stops is not None:
            one, drawn_R = self.part.stops[row // self.samples], self.tokens_BR[row, :stop]
            self.room_B[row] = limits.stopped(one, drawn_R, self.room_B[row], eos_id)
        ended = bool(self.room_B[row] <= stop or eos_id in self.tokens_BR[row, start:stop])
        self.left -= ended
        return ended


@dataclass
class _Prefilled:
    """Prompts in a cache of their own, and those of their completions that wait.

    waiting: (prompt of these, its id, number of the sample, the completion's row in its part).
    """

    begun: _Begun
    hidden_PD: jax.Array
    cache: KVCache
    length_P: np.ndarray
    waiting: deque[tuple[int, int, int, int]]


@dataclass
class _Row:
    """The completion that a row of the batch draws; step: tokens drawn, first_slot: of token 0."""

    begun: _Begun
    place: int
    first_slot: int
    step: int = 0


class Refill:
    """A draw of many parts; arguments as of `Sampler.stream`."""

    def __init__(
        self,
        programs: Programs,
        weights: Any,
        parts: Sequence[Part],
        settings: SamplingSettings,
        key: jax.Array,
        samples: int,
        rows: int,
    ):
        self.programs, self.weights, self.settings = programs, weights, settings
        self.samples = samples
        self.key_data = np.asarray(jax.random.key_data(key))
        # Checked as a whole: nothing is drawn where one prompt is wrong.
        rooms = [self._rooms(part) for part in parts]
        widths = [self._packed(part.prompts)[0].shape[1] for part in parts]
        widest = max(widths, default=1)
        self.slots = widest + settings.max_new_tokens
        sizes = sizes_of(rows, samples, widest, sharding.batch_shards(programs.mesh))
        self.size, self.repeats = sizes
        self.rows: list[_Row | None] = [None] * sizes.rows
        self.parts = deque(zip(parts, rooms, widths, strict=True))
        self.begun: deque[_Begun] = deque()
        self.chunks = self._chunks()
        self.chunk: _Prefilled | None = None
        self.carry: Carry | None = None

    def rollouts(self) -> Iterator[Rollout]:
        """Those of the parts, in order, each as soon as it and those before it are drawn."""
        while self._begin():
            self._segment()
            while self.begun and self.begun[0].left == 0:
                yield self._finished(self.begun.popleft())

    def _finished(self, one: _Begun) -> Rollout:
        how = {"eos_id": self.programs.eos_id, "pad_id": self.programs.pad_id}
        return limits.finished(one.tokens_BR, one.logp_BR, one.room_B, **how)

    # --- rows that begin ------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Puts waiting completions into free rows; whether there is a row to decode."""
        while None in self.rows:
            if self.chunk is None or not self.chunk.waiting:
                self.chunk = None  # its keys are freed before the next ones are made
                self.chunk = next(self.chunks, None)
            if self.chunk is None:
                break
            self._insert(self.chunk)
        return any(row is not None for row in self.rows)

    def _insert(self, chunk: _Prefilled) -> None:
        count = len(self.rows)
        source_B = np.full(count, -1, np.int32)
        id_B, sample_B = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        for row, one in enumerate(self.rows):
            if one is None and chunk.waiting:
                source_B[row], id_B[row], sample_B[row], place = chunk.waiting.popleft()
                self.rows[row] = _Row(chunk.begun, place, chunk.cache.num_slots)
        given = chunk.hidden_PD, chunk.cache
        if self.carry is None:
            # No prompt of it is real: all rows are free. A program that `generate` has, too.
            none_P, how = np.zeros(self.size, np.uint32), (0, self.repeats, self.slots)
            begun = chunk.length_P, none_P, none_P, self.key_data
            self.carry = self.programs.start(*given, *begun, *how)
        more = chunk.length_P, self.key_data, source_B, id_B, sample_B
        self.carry = self.programs.insert(self.carry, *given, *more)

    def _chunks(self) -> Iterator[_Prefilled]:
        """Prefilled prompts; a chunk is of one part, and padded as far as the part."""
        while self.parts:
            part, room_P, width = self.parts.popleft()
            steps, G = self.settings.max_new_tokens, self.samples
            self.begun.append(_Begun(part, room_P, G, steps, self.programs.pad_id))
            begun = self.begun[-1]
            for first in range(0, len(part.prompts), self.size):
                last = min(first + self.size, len(part.prompts))
                tokens_PT, length_P = self._packed(part.prompts[first:last], width, self.size)
                placed = sharding.place((tokens_PT, length_P), self.programs.rows)
                hidden_PD, cache = self.programs.prefill(self.weights, *placed)
                waiting = deque(
                    (at - first, int(part.prompt_ids[at]), g, at * G + g)
                    for at in range(first, last)
                    for g in range(G)
                )
                yield _Prefilled(begun, hidden_PD, cache, length_P, waiting)

    def _packed(
        self, prompts: Sequence[Sequence[int]], width: int | None = None, rows: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        width = self.settings.prompt_multiple if width is None else width
        return limits.packed(prompts, width=width, rows=rows, pad_id=self.programs.pad_id)

    def _rooms(self, part: Part) -> np.ndarray:
        return limits.rooms_of(
            part.prompts,
            part.prompt_ids,
            part.rooms,
            longest=self.settings.max_new_tokens,
            positions=self.programs.model.config.max_position_embeddings,
        )

    # --- rows that are decoded ------------------------------------------------------------------

    def _segment(self) -> None:
        settings = self.settings
        steps = min(settings.segment, settings.max_new_tokens)
        # A row without a completion draws, too; what it draws means nothing.
        state = [(0, 0) if one is None else (one.step, one.first_slot) for one in self.rows]
        offsets_2B = np.array(state, np.int32).T
        self.carry, out = self.programs.segment(
            self.weights, self.carry, offsets_2B, steps, settings
        )
        tokens_NB, logp_NB = sharding.fetch(out)
        for row, one in enumerate(self.rows):
            if one is None:
                continue
            drawn = tokens_NB[:, row], logp_NB[:, row]
            if one.begun.put(one.place, one.step, *drawn, self.programs.eos_id):
                self.rows[row] = None
            one.step += steps
