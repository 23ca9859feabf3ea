"""The decode loop: prefill each prompt once, share it over its samples, decode in segments.

A segment is one compiled program of a fixed number of steps. Between segments the host reads which
rows have ended and, when at most half are left, drops the ended ones from the batch. A caller's
`stops` end rows there, too: what a segment drew after that place is cut off. All rows write
to the same cache slot (prompts end at slot Tp, generated token t has slot Tp + t), so the cache is
updated by one slice; unused slots after a short prompt are masked by slot position −1.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core import rng, sharding
from distill_jax.core.batching import filled, quartered, round_up
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.models import cache as kv
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.completions import Rollout as Rollout
from distill_jax.rollout.sampling import draw
from distill_jax.rollout.weights import decode_weights, gathered, head_logits

# Tokens of a completion so far, EOS included -> how many of them it keeps and ends with; None: it
# goes on.
Stop = Callable[[Sequence[int]], int | None]
# Tokens, EOS included, of completions that ended with EOS since the last call.
Ended = Callable[[Sequence[Sequence[int]]], None]


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn."""

    UNREAD: ClassVar = (Unread(("output_tokens",), ("rounds",), lambda rounds: rounds == 1),)

    temperature: float = setting(1.0, "Divides the logits; 0 decodes greedily.", low=0.0)
    top_p: float = setting(1.0, "Nucleus mass kept; 1 is off.", above=0.0, high=1.0)
    top_k: int = setting(0, "Most probable tokens kept; 0 is off.", low=0)
    max_new_tokens: int = setting(512, "Longest completion, EOS included.", low=1)
    rounds: int = setting(
        1,
        "Turns of the model in a completion; between two of them a task that runs programs puts "
        "the output of the program before.",
        low=1,
    )
    output_tokens: int = setting(
        400, "Longest such output; the middle of a longer one is cut out and marked.", low=64
    )
    segment: int = setting(
        32, "Decode steps between two checks which rows have ended.", low=1, affects="rounding"
    )
    row_counts: int = setting(
        0,
        "Different numbers of rows that a batch is decoded with, at most: while its rows end it "
        "shrinks to a quarter, once a segment. 0: to halves, as far as they go.",
        low=0,
        affects="rounding",
    )
    prompt_multiple: int = setting(
        64, "Prompts are padded to a multiple of this.", low=1, affects="rounding"
    )
    merge_lora: bool = setting(
        True, "Fold LoRA into a copy of the weights for decoding.", affects="rounding"
    )

    @property
    def response_tokens(self) -> int:
        """Longest response: what the model draws, and the outputs between its turns."""
        return self.max_new_tokens + (self.rounds - 1) * self.output_tokens

    def whole(self, temperature: float) -> "SamplingSettings":
        """The same limits, drawn from the whole distribution at a temperature; 0 is greedy."""
        return dataclasses.replace(self, temperature=temperature, top_p=1.0, top_k=0)


class Carry(NamedTuple):
    """The state between segments, of the rows that are still decoded."""

    hidden_BD: jax.Array
    cache: kv.KVCache
    slot_position_BS: jax.Array
    length_B: jax.Array
    done_B: jax.Array
    key_B: jax.Array


@dataclass(frozen=True)
class _Programs:
    """What a sampler compiles, shared by equal ones: of all subjects, stages and runs."""

    model: QwenModel
    mesh: Mesh
    eos_id: int
    pad_id: int

    @property
    def rows(self) -> NamedSharding:
        return sharding.batch_sharding(self.mesh)

    @property
    def cache_sharding(self) -> NamedSharding:
        heads = self.model.config.num_kv_heads
        split = "tensor" if heads % self.mesh.shape["tensor"] == 0 else None
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp"), split, None, None))

    @functools.partial(jax.jit, static_argnums=0)
    def prefill(self, weights, tokens_PT, lengths_P) -> tuple[jax.Array, kv.KVCache]:
        return self.model.prefill(weights["body"], tokens_PT, lengths_P)

    @functools.partial(jax.jit, static_argnums=(0, 8, 9))
    def start(
        self,
        hidden_PD,
        cache,
        length_P,
        ids_P,
        first_P,
        key_data,
        prompts,
        samples: int,
        slots: int,
    ) -> Carry:
        sample_G = jnp.arange(samples, dtype=jnp.uint32)
        key_B = rng.sample_keys(
            jax.random.wrap_key_data(key_data),
            jnp.repeat(ids_P, samples),
            (first_P[:, None] + sample_G).reshape(-1),
        )
        prompt_slots = cache.num_slots
        cache = kv.expand(cache, samples, slots)
        length_B = jnp.repeat(length_P, samples)
        slot_S = jnp.arange(slots)
        position_BS = jnp.where(slot_S[None, :] < length_B[:, None], slot_S[None, :], -1)
        position_BS = jnp.where(slot_S[None, :] < prompt_slots, position_BS, -1)
        hidden_BD = jnp.repeat(hidden_PD, samples, axis=0)
        done_B = jnp.arange(len(length_B)) >= prompts * samples
        return self._placed(Carry(hidden_BD, cache, position_BS, length_B, done_B, key_B))

    @functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
    def segment(self, weights, carry: Carry, offsets, steps: int, settings: SamplingSettings):
        start, first_slot = offsets[0], offsets[1]
        step_N = start + jnp.arange(steps)
        uniform = jax.vmap(
            jax.vmap(lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)), (0, None)),
            (None, 0),
        )(carry.key_B, step_N)

        def body(state, inputs):
            hidden_BD, cache, position_BS, done_B = state
            t, uniform_B = inputs
            token_B, logp_B = draw(
                head_logits(weights, hidden_BD),
                uniform_B,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
            )
            token_B = jnp.where(done_B, self.pad_id, token_B)
            done_B = done_B | (token_B == self.eos_id)
            place_B = carry.length_B + t
            slot = first_slot + t
            position_BS = jax.lax.dynamic_update_slice(position_BS, place_B[:, None], (0, slot))
            hidden_BD, cache = self.model.decode(
                weights["body"], token_B, place_B, cache, slot, position_BS
            )
            return (hidden_BD, cache, position_BS, done_B), (token_B, logp_B)

        state = (carry.hidden_BD, carry.cache, carry.slot_position_BS, carry.done_B)
        state, out = jax.lax.scan(body, state, (step_N, uniform))
        hidden_BD, cache, position_BS, done_B = state
        cache = jax.lax.with_sharding_constraint(cache, self.cache_sharding)
        carry = carry._replace(
            hidden_BD=hidden_BD, cache=cache, slot_position_BS=position_BS, done_B=done_B
        )
        return carry, out

    @functools.partial(jax.jit, static_argnums=0)
    def compact(self, carry: Carry, keep_N: jax.Array, filler_N: jax.Array) -> Carry:
        kept = jax.tree.map(lambda x: jnp.take(x, keep_N, axis=0), carry)
        return self._placed(kept._replace(done_B=kept.done_B | filler_N))

    def _placed(self, carry: Carry) -> Carry:
        """The carry split over the mesh; XLA chooses where the keys go."""
        constrain = jax.lax.with_sharding_constraint
        rows = [name for name in Carry._fields if name not in ("cache", "key_B")]
        return carry._replace(
            cache=constrain(carry.cache, self.cache_sharding),
            **{name: constrain(getattr(carry, name), self.rows) for name in rows},
        )


class Sampler:
    """Draws completions from a model's weights; holds none.

    Args:
        model: the student (or the teacher).
        mesh: rows are split over data and fsdp, cache heads over tensor.
        eos_id: ends a completion and is part of it.
        pad_id: fills tokens_BR after the end.
        vocab: number of tokens of the tokenizer; logit rows beyond it are never drawn.
    """

    def __init__(self, model: QwenModel, mesh: Mesh, *, eos_id: int, pad_id: int, vocab: int):
        self.model, self.mesh = model, mesh
        self.eos_id, self.pad_id, self.vocab = eos_id, pad_id, vocab
        # Decoding sees no adapter but that of the weights: all students of a base share programs.
        self.programs = _Programs(model.replace(lora=None), mesh, eos_id, pad_id)
        self.cache_sharding, self.rows = self.programs.cache_sharding, self.programs.rows
        self._prefill, self._start = self.programs.prefill, self.programs.start
        self._segment, self._compact = self.programs.segment, self.programs.compact

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
        prompt_PT, length_P = self._pack_prompts(prompts, settings)
        if len(prompt_ids) != len(prompts):
            raise DataError(f"{len(prompt_ids)} ids of {len(prompts)} prompts", wanted="one each")
        longest = settings.max_new_tokens
        rooms = [longest] * len(prompts) if rooms is None else rooms
        if len(rooms) != len(prompts) or not 0 < min(rooms) <= max(rooms) <= longest:
            got = f"rooms {list(rooms)} of {len(prompts)} prompts"
            raise DataError(got, wanted=f"one each, 1 to {longest}")
        # Padding after a prompt takes slots, but no positions.
        self._check_room(max(len(p) + room for p, room in zip(prompts, rooms, strict=True)))
        slots = prompt_PT.shape[1] + settings.max_new_tokens
        hidden_PD, cache = self._prefill(
            weights, sharding.place(prompt_PT, self.rows), sharding.place(length_P, self.rows)
        )
        padded = len(prompt_PT)
        ids_P, first_P = np.zeros(padded, np.uint32), np.zeros(padded, np.uint32)
        ids_P[: len(prompts)] = np.asarray(prompt_ids, np.uint32)
        first_P[: len(prompts)] = 0 if firsts is None else np.asarray(firsts, np.uint32)
        # Key data travels as numpy: in a multi-process run a local key cannot enter a global jit.
        key_data = np.asarray(jax.random.key_data(key))
        carry = self._start(
            hidden_PD, cache, length_P, ids_P, first_P, key_data, len(prompts), samples, slots
        )
        del cache  # as large as that of all rows, where each has its own prompt
        room_B = np.repeat(np.asarray(rooms, np.int32), samples)
        stop_B = None if stops is None else [one for one in stops for _ in range(samples)]
        return self._decode(weights, carry, settings, room_B, prompt_PT.shape[1], stop_B, ended)

    def _decode(
        self,
        weights: Any,
        carry: Carry,
        settings: SamplingSettings,
        room_B: np.ndarray,
        first_slot: int,
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
            carry, out = self._segment(
                weights, carry, np.array([start, first_slot], np.int32), n, settings
            )
            out_tokens, out_logp, done = sharding.fetch((*out, carry.done_B))
            real = row >= 0
            where = (row[real], slice(start, start + n))
            tokens[where], logp[where] = out_tokens.T[real], out_logp.T[real]
            if stop_B is not None:
                self._stop(stop_B, tokens[:, : start + n], row[real & (row < count)], room_B)
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
                keep = filled(live, size)
                filler = np.arange(size) >= len(live)
                carry = self._compact(carry, keep.astype(np.int32), filler)
                row = np.where(filler, -1, row[keep])
        return self._finish(tokens[:count], logp[:count], room_B[:count])

    def _tell(self, ended: Ended, drawn_BR: np.ndarray, rows: np.ndarray, start: int) -> None:
        """Calls `ended` with those rows whose EOS is not before `start`."""
        places = np.argmax(drawn_BR[rows] == self.eos_id, axis=1)
        new = [(row, place) for row, place in zip(rows, places, strict=True) if place >= start]
        ended([drawn_BR[row, : place + 1].tolist() for row, place in new])

    def _stop(
        self, stop_B: Sequence[Stop], drawn_BR: np.ndarray, rows: np.ndarray, room_B: np.ndarray
    ) -> None:
        """Lowers, in place, the room of those rows that end in what was drawn."""
        for row in rows:
            tokens = drawn_BR[row, : room_B[row]].tolist()
            if self.eos_id in tokens:
                tokens = tokens[: tokens.index(self.eos_id) + 1]
            kept = stop_B[row](tokens)
            if kept is not None:
                room_B[row] = kept

    def _finish(self, tokens: np.ndarray, logp: np.ndarray, room_B: np.ndarray) -> Rollout:
        is_eos = tokens == self.eos_id
        end = np.where(is_eos.any(axis=1), is_eos.argmax(axis=1) + 1, tokens.shape[1] + 1)
        ended = end <= room_B
        length = np.minimum(end, room_B).astype(np.int32)
        after = np.arange(tokens.shape[1])[None, :] >= length[:, None]
        tokens[after] = self.pad_id
        logp[after] = 0.0
        return Rollout(tokens, length, ended, logp)

    def _batch_size(self, live: int, current: int) -> int:
        # Halving sizes keep the number of compiled programs at log2 of the batch.
        parts = sharding.batch_shards(self.mesh)
        size = current
        while size % 2 == 0 and size // 2 >= live and (size // 2) % parts == 0:
            size //= 2
        return size

    def _pack_prompts(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> tuple[np.ndarray, np.ndarray]:
        if not len(prompts) or any(len(p) == 0 for p in prompts):
            raise DataError("an empty prompt or no prompt", wanted="at least one token in each")
        multiple, parts = settings.prompt_multiple, sharding.batch_shards(self.mesh)
        width = round_up(max(len(p) for p in prompts), multiple)
        rows = round_up(len(prompts), parts)
        tokens_PT = np.full((rows, width), self.pad_id, np.int32)
        length_P = np.ones(rows, np.int32)
        for i, prompt in enumerate(prompts):
            tokens_PT[i, : len(prompt)] = prompt
            length_P[i] = len(prompt)
        return tokens_PT, length_P

    def _check_room(self, positions: int) -> None:
        limit = self.model.config.max_position_embeddings
        if positions > limit:
            raise ConfigError(
                f"prompt and completion take {positions} positions, the model has {limit}",
                fix="lower sampling.max_new_tokens or data.max_prompt_tokens",
            )
