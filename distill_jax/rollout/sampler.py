"""The decode loop: prefill each prompt once, share it over its samples, decode in segments.

A segment is one compiled program of a fixed number of steps. Between segments the host reads which
rows have ended and, when at most half are left, drops the ended ones from the batch. A caller's
`stops` end rows there, too: what a segment drew after that place is cut off. Rows begin together
(`generate`), or waiting completions take the rows that have ended (`stream`).

On accelerators the samples of a prompt read its keys and values where prefill left them, until the
first rows are dropped: then each row that stays gets a copy. The cache of tokens grows between
segments, 128, 256, 512, … slots. Rows of `stream`, and those of later turns, which have prompts of
their own, share nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import quartered
from distill_jax.models.cache import SharedPrompts
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout import limits, slots
from distill_jax.rollout.compiled import Carry as Carry
from distill_jax.rollout.compiled import Programs, bucket_of
from distill_jax.rollout.completions import Rollout as Rollout
from distill_jax.rollout.limits import Ended as Ended
from distill_jax.rollout.limits import Stop as Stop
from distill_jax.rollout.refill import Part as Part
from distill_jax.rollout.refill import Refill
from distill_jax.rollout.sampling_settings import SamplingSettings as SamplingSettings
from distill_jax.rollout.slots import Slots
from distill_jax.rollout.weights import decode_weights, gathered


class Sampler:
    """Draws completions from a model's weights; holds none.

    Args:
        model: the student (or the teacher).
        mesh: rows are split over data and fsdp, cache heads over tensor.
        eos_id: ends a completion and is part of it.
        pad_id: fills tokens_BR after the end.
        vocab: number of tokens of the tokenizer; logit rows beyond it are never drawn.
        bucket: of `Programs`; None: as the mesh's platform wants it.
    """

    def __init__(
        self,
        model: QwenModel,
        mesh: Mesh,
        *,
        eos_id: int,
        pad_id: int,
        vocab: int,
        bucket: int | None = None,
    ):
        self.model, self.mesh = model, mesh
        self.eos_id, self.pad_id, self.vocab = eos_id, pad_id, vocab
        # Decoding sees no adapter but that of the weights: all students of a base share programs.
        bucket = bucket_of(sharding.platform(mesh)) if bucket is None else bucket
        self.programs = Programs(model.replace(lora=None), mesh, eos_id, pad_id, bucket)
        self.cache_sharding, self.rows = self.programs.cache_sharding, self.programs.rows
        self._prefill, self._start = self.programs.prefill, self.programs.start
        self._segment, self._compact = self.programs.segment, self.programs.compact
        self._grow = self.programs.grow

    def weights(self, params: Any, settings: SamplingSettings) -> Any:
        """Per-layer weights for decoding, LoRA merged out of place or kept as an adapter.

        Each device holds them whole, but for what the tensor axis splits.
        """
        made = decode_weights(self.model, params, settings.merge_lora, self.vocab)
        return gathered(made, self.mesh)

    def generate(
        self,
        weights: Any,
        prompts: Sequence[Sequence[int]],
        settings: SamplingSettings,
        *,
        key: jax.Array,
        prompt_ids: Sequence[int],
        samples: int = 1,
        firsts: Sequence[int] | None = None,
        stops: Sequence[Stop] | None = None,
        rooms: Sequence[int] | None = None,
        ended: Ended | None = None,
    ) -> Rollout:
        """Samples completions; row p·samples + g is sample g of prompt p.

        A completion that `stops` or `rooms` ends is the first part of the one without.

        Args:
            weights: from `weights`.
            prompts: token ids, at least one each.
            settings: temperature, limits.
            key: typed key of this draw (run, stream, step folded in).
            prompt_ids: names each prompt; with the sample's number it seeds its randomness.
            samples: G.
            firsts: number of each prompt's first sample; None is 0.
            stops: where completions of each prompt end before EOS; None: nowhere.
            rooms: most tokens of each prompt's completions, 1 to settings.max_new_tokens; None is
                the latter.
            ended: called after each segment, for work that can begin before all have ended.

        Raises:
            DataError: an empty prompt, no prompt at all, or not one id and room a prompt.
            ConfigError: prompt and completion exceed the model's positions.
        """
        prompt_PT, length_P = limits.packed(
            prompts,
            width=settings.prompt_multiple,
            rows=sharding.batch_shards(self.mesh),
            pad_id=self.pad_id,
        )
        room_P = limits.rooms_of(
            prompts,
            prompt_ids,
            rooms,
            longest=settings.max_new_tokens,
            positions=self.model.config.max_position_embeddings,
        )
        room = Slots.of(self.programs.bucket, prompt_PT.shape[1], settings, samples)
        placed_P = sharding.place(length_P, self.rows)
        hidden_PD, cache = self._prefill(weights, sharding.place(prompt_PT, self.rows), placed_P)
        padded = len(prompt_PT)
        ids_P, first_P = np.zeros(padded, np.uint32), np.zeros(padded, np.uint32)
        ids_P[: len(prompts)] = np.asarray(prompt_ids, np.uint32)
        first_P[: len(prompts)] = 0 if firsts is None else np.asarray(firsts, np.uint32)
        # Key data travels as numpy: in a multi-process run a local key cannot enter a global jit.
        key_data = np.asarray(jax.random.key_data(key))
        begun = length_P, ids_P, first_P, key_data, len(prompts), samples, room.total
        if room.shared:
            carry = self._start(hidden_PD, None, *begun)
            carry = carry._replace(shared=SharedPrompts(cache, placed_P))
        else:
            carry = self._start(hidden_PD, cache, *begun)
        del cache  # as large as that of all rows, where each has its own prompt
        room_B = np.repeat(room_P, samples)
        stop_B = None if stops is None else [one for one in stops for _ in range(samples)]
        return self._decode(weights, carry, settings, room_B, room, stop_B, ended)

    def stream(
        self,
        weights: Any,
        parts: Sequence[Part],
        settings: SamplingSettings,
        *,
        key: jax.Array,
        samples: int,
        rows: int,
    ) -> Iterator[Rollout]:
        """Yields what `generate` draws of each part, in order; all share one batch of rows.

        A row whose completion has ended takes the next one that waits, of its part or a later one.
        For draws of many times more completions than rows: the batch does not shrink, so its last
        completions are decoded with all rows. A part has the same bits whichever parts are left
        out before it, if none of them is wider. Tokens, lengths and ends are those of `generate`,
        but where a draw falls between two tokens by rounding; log-probabilities are its within
        1e-5 (float32, tests/rollout/test_refill.py), in general not its bits: batches have other
        sizes, and the cache is as long as the widest part's. There are no `firsts` and no `ended`.

        Args:
            weights, settings, key: as `generate` takes them.
            parts: prompts that are returned together; of similar length, shorter parts first.
            samples: G, of each prompt.
            rows: completions decoded at a time; the cache holds as many. Rounded up to a multiple
                of the prompts that are prefilled together, and these to one of the mesh's parts.

        Raises:
            DataError, ConfigError: as `generate`, before anything is drawn.
        """
        return Refill(self.programs, weights, parts, settings, key, samples, rows).rollouts()

    def _decode(
        self,
        weights: Any,
        carry: Carry,
        settings: SamplingSettings,
        room_B: np.ndarray,
        room: Slots,
        stop_B: Sequence[Stop] | None,
        ended: Ended | None,
    ) -> Rollout:
        steps, count = settings.max_new_tokens, len(room_B)
        total = carry.done_B.shape[0]
        tokens = np.full((total, steps), self.pad_id, np.int32)
        logp = np.zeros((total, steps), np.float32)
        row = np.arange(total)  # batch row -> row of the result; -1 for a filler
        room_B = np.r_[room_B, np.full(total - count, steps, np.int32)]
        for start in range(0, steps, settings.segment):
            n = min(settings.segment, steps - start)
            if room.hold(start + n):
                carry = self._grow(carry, room.total)
            carry, out = self._segment(
                weights, carry, np.array([start, room.first], np.int32), n, settings
            )
            out_tokens, out_logp, done = sharding.fetch((*out, carry.done_B))
            real = row >= 0
            where = (row[real], slice(start, start + n))
            tokens[where], logp[where] = out_tokens.T[real], out_logp.T[real]
            if stop_B is not None:
                for at in row[real & (row < count)]:
                    drawn_R = tokens[at, : start + n]
                    room_B[at] = limits.stopped(stop_B[at], drawn_R, room_B[at], self.eos_id)
            if ended is not None and len(new := row[real & (row < count) & done]):
                self._tell(ended, tokens[:, : start + n], new, start)
            live = np.flatnonzero(~done & real)
            live = live[room_B[row[live]] > start + n]
            if not len(live):
                break
            size = self._batch_size(len(live), len(row))
            if (counts := settings.row_counts) > 0:
                parts = sharding.batch_shards(self.mesh)
                size = quartered(len(live), len(row), first=total, counts=counts, parts=parts)
            if size < len(row) and start + n < steps:
                carry, kept = self._drop(carry, room, live, size, start + 2 * n)
                row = np.where(kept.filler_N, -1, row[kept.row_N])
        return limits.finished(
            tokens[:count], logp[:count], room_B[:count], eos_id=self.eos_id, pad_id=self.pad_id
        )

    def _drop(
        self, carry: Carry, room: Slots, live: np.ndarray, size: int, tokens: int
    ) -> tuple[Carry, slots.Kept]:
        """`size` rows with the live ones, with slots for so many tokens, and which these are."""
        current = carry.done_B.shape[0]
        kept = slots.kept(live, current, size, sharding.batch_shards(self.mesh))
        more = room.apart(tokens), kept.apart
        return self._compact(carry, kept.row_N, kept.filler_N, *more), kept

    def _tell(self, ended: Ended, drawn_BR: np.ndarray, rows: np.ndarray, start: int) -> None:
        """Calls `ended` with those rows whose EOS is not before `start`."""
        places = np.argmax(drawn_BR[rows] == self.eos_id, axis=1)
        new = [(row, place) for row, place in zip(rows, places, strict=True) if place >= start]
        ended([drawn_BR[row, : place + 1].tolist() for row, place in new])

    def _batch_size(self, live: int, current: int) -> int:
        # Halving sizes keep the number of compiled programs at log2 of the batch.
        parts = sharding.batch_shards(self.mesh)
        size = current
        while size % 2 == 0 and size // 2 >= live and (size // 2) % parts == 0:
            size //= 2
        return size
