"""Bytes of the sampler's cache on one device: while rows are decoded, and while ended ones leave.

How many slots a row has, and when, is what `rollout.slots` says: the same object is asked here.
"""

from typing import NamedTuple

from distill_jax.core.batching import quartered
from distill_jax.forecast.activations import Program
from distill_jax.rollout.compiled import BUCKET, NO_GROWTH
from distill_jax.rollout.sampling_settings import SamplingSettings
from distill_jax.rollout.slots import Slots


class Batch(NamedTuple):
    """Rows that are drawn together: `samples` of each of a device's `prompts`.

    prompt: slots of a prompt. shards: devices that rows are split over. settings: max_new_tokens
    are those of the draw.
    """

    prompts: int
    samples: int
    prompt: int
    shards: int
    settings: SamplingSettings

    @property
    def rows(self) -> int:
        """Of one device."""
        return self.prompts * self.samples

    def slots(self, program: Program) -> Slots:
        """Those that a row begins with."""
        bucket = NO_GROWTH if program.cpu else BUCKET
        return Slots.of(bucket, self.prompt, self.settings, self.samples)


def held(program: Program, rows: int, slots: int) -> int:
    """Keys and values of so many rows, which each have so many slots."""
    g = program.geometry
    heads = program.split(g.num_kv_heads)
    return 2 * g.num_layers * rows * heads * g.head_dim * slots * program.itemsize


def drawn(program: Program, batch: Batch) -> int:
    """While a batch is decoded, all its slots in use; a layer twice where the cache has grown."""
    room = batch.slots(program)
    grew = room.hold(batch.settings.max_new_tokens)
    own = held(program, batch.rows, room.total)
    return own + grew * own // program.geometry.num_layers + _prompts(program, batch, room)


def compacting(program: Program, batch: Batch) -> int:
    """While ended rows leave: the cache before and that of the rows that stay; 0: none leave.

    Those that stay have their prompts with them. They leave at the last check for ends at the
    latest, when the caches are largest; most stay where the batch shrinks by one size, and the
    largest caches are those of its first change of size or, behind long prompts, of its second.
    """
    settings, room = batch.settings, batch.slots(program)
    checks = (settings.max_new_tokens - 1) // settings.segment
    tokens = checks * settings.segment
    room.hold(tokens)
    before = held(program, batch.rows, room.total) + _prompts(program, batch, room)
    slots = room.apart(tokens + settings.segment)
    total = batch.rows * batch.shards
    caches, size = [before], total
    for _ in range(min(checks, 2)):
        size, last = next_rows(size, total, settings, batch.shards), size
        if size < last:
            caches.append(held(program, size // batch.shards, slots))
    return max((x + y for x, y in zip(caches, caches[1:], strict=False)), default=0)


def next_rows(current: int, first: int, settings: SamplingSettings, parts: int) -> int:
    """The largest batch that one of `current` rows may shrink to; `current`: to none.

    first: rows before any shrinking. parts: into which rows are split.
    """
    if settings.row_counts:
        return quartered(1, current, first=first, counts=settings.row_counts, parts=parts)
    half, rest = divmod(current, 2)
    return half if half and rest == 0 and half % parts == 0 else current


def _prompts(program: Program, batch: Batch, room: Slots) -> int:
    """Prompts that the rows share, if they do."""
    return held(program, batch.prompts, batch.prompt) if room.shared else 0
