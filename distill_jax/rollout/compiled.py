"""What a sampler compiles: prefill, the first state of rows, segments of steps, changes of rows.

Rows write their keys and values to slots of the cache: prompts end at slot Tp, generated token t
has slot Tp + t; unused slots after a short prompt are masked by slot position −1. Where all rows
are at the same token, the cache is updated by one slice; else by one scatter of a token a row.
Several samples of a prompt read its keys where prefill left them (`Carry.shared`): token t then has
slot t of a cache that holds no prompt. On accelerators caches grow as tokens are drawn.
"""

import functools
import logging
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core import rng, sharding
from distill_jax.models import cache as kv
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.sampling import draw
from distill_jax.rollout.sampling_settings import SamplingSettings
from distill_jax.rollout.weights import head_logits

# Slots that a growing cache begins with. Each number of slots needs a program of its length, so
# with `sampling.row_counts`, which asks for few programs, a cache begins with twice as many.
BUCKET = 128
# Above the slots of any cache, which then has all from the start: on CPU, where compiling programs
# of further lengths would take the cores that draw.
NO_GROWTH = 2**20
_log = logging.getLogger(__name__)


class Carry(NamedTuple):
    """The state between segments, of the rows that are decoded.

    shared: prompts that `cache` does not hold; None: it holds each row's.
    """

    hidden_BD: jax.Array
    cache: kv.KVCache
    slot_position_BS: jax.Array
    length_B: jax.Array
    done_B: jax.Array
    key_B: jax.Array
    shared: kv.SharedPrompts | None = None


@functools.cache
def bucket_of(platform: str | None) -> int:
    """`Programs.bucket` on a platform; says so once where caches grow."""
    if platform in (None, "cpu"):
        return NO_GROWTH
    _log.info("decoding on %s: caches grow", platform)
    return BUCKET


@dataclass(frozen=True)
class Programs:
    """What a sampler compiles, shared by equal ones: of all subjects, stages and runs.

    bucket: slots for drawn tokens that a row's cache begins with; it grows. NO_GROWTH: all at once.
    """

    model: QwenModel
    mesh: Mesh
    eos_id: int
    pad_id: int
    bucket: int

    @property
    def rows(self) -> NamedSharding:
        """Rows are split over data and fsdp."""
        return sharding.batch_sharding(self.mesh)

    @property
    def cache_sharding(self) -> NamedSharding:
        """And heads over tensor, where it divides them."""
        heads = self.model.config.num_kv_heads
        split = "tensor" if heads % self.mesh.shape["tensor"] == 0 else None
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp"), split, None, None))

    @functools.partial(jax.jit, static_argnums=0)
    def prefill(self, weights, tokens_PT, lengths_P) -> tuple[jax.Array, kv.KVCache]:
        """As `Decoding.prefill`."""
        hidden_PD, cache = self.model.prefill(weights["body"], tokens_PT, lengths_P)
        # Rows that share their prompts decode from it as it is.
        return hidden_PD, jax.lax.with_sharding_constraint(cache, self.cache_sharding)

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
        """Rows that begin together: `samples` of each prompt, of which `prompts` are no filler.

        cache: of the prompts; None: the rows are to share it, and begin with none of their own.
        """
        sample_G = jnp.arange(samples, dtype=jnp.uint32)
        key_B = rng.sample_keys(
            jax.random.wrap_key_data(key_data),
            jnp.repeat(ids_P, samples),
            (first_P[:, None] + sample_G).reshape(-1),
        )
        length_B = jnp.repeat(length_P, samples)
        if cache is None:
            position_BS = _prompt_positions(length_B, 0, slots)
            g, dtype = self.model.config, self.model.compute_dtype
            sizes = len(length_B), g.num_kv_heads, g.head_dim, slots
            cache = kv.empty(g.num_layers, *sizes, dtype)
        else:
            position_BS = _prompt_positions(length_B, cache.num_slots, slots)
            cache = kv.expand(cache, samples, slots)
        hidden_BD = jnp.repeat(hidden_PD, samples, axis=0)
        done_B = jnp.arange(len(length_B)) >= prompts * samples
        return self._placed(Carry(hidden_BD, cache, position_BS, length_B, done_B, key_B))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def insert(
        self, carry: Carry, hidden_PD, cache, length_P, key_data, source_B, id_B, sample_B
    ) -> Carry:
        """The carry with prefilled prompts in some rows, and nothing there of earlier ones.

        source_B: int32, which prompt a row begins with; −1: it stays as it is.
        """
        at_B = jnp.maximum(source_B, 0)
        length_B = jnp.take(length_P, at_B)
        slots = carry.cache.num_slots
        begun = Carry(
            jnp.take(hidden_PD, at_B, axis=0),
            kv.expand(jax.tree.map(lambda x: jnp.take(x, at_B, axis=0), cache), 1, slots),
            _prompt_positions(length_B, cache.num_slots, slots),
            length_B,
            jnp.zeros(len(at_B), bool),
            rng.sample_keys(jax.random.wrap_key_data(key_data), id_B, sample_B),
        )

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where((source_B >= 0).reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return self._placed(jax.tree.map(put, carry, begun))

    @functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
    def segment(self, weights, carry: Carry, offsets, steps: int, settings: SamplingSettings):
        """Draws `steps` tokens a row: the carry, and tokens and log-probabilities [N, B].

        offsets: int32 [2], number of the next token and slot of token 0 of all rows, or [2, B].
        """
        start, first_slot = offsets[0], offsets[1]
        step_N = jnp.add.outer(jnp.arange(steps), start)  # or [N, B]
        uniform = jax.vmap(
            jax.vmap(
                lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)),
                (0, None if start.ndim == 0 else 0),
            ),
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
            position_BS = kv.write(position_BS, place_B[:, None], slot, axis=1)
            hidden_BD, cache = self.model.decode(
                weights["body"], token_B, place_B, cache, slot, position_BS, carry.shared
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

    @functools.partial(jax.jit, static_argnums=(0, 4, 5))
    def compact(
        self,
        carry: Carry,
        keep_N: jax.Array,
        filler_N: jax.Array,
        slots: int = 0,
        apart: bool = False,
    ) -> Carry:
        """The rows `keep_N` alone; those that only fill up are not decoded.

        Each row's cache then holds its prompt.

        slots: of that cache; 0: as many as before.
        apart: `keep_N` has equally many rows of each device, in the order of devices, so no row
            moves to another device.
        """
        take = functools.partial(kv.taken, parts=sharding.batch_shards(self.mesh) if apart else 1)
        shared, own = carry.shared, carry._replace(shared=None)
        kept = jax.tree.map(lambda x: take(x, keep_N), own)
        if shared is not None:
            group = len(carry.done_B) // len(shared.length_P)
            prompts = jax.tree.map(lambda x: take(x, keep_N // group), shared.cache)
            T = prompts.num_slots
            before_NT = _prompt_positions(kept.length_B, T, T)
            kept = kept._replace(
                cache=kv.joined(prompts, kept.cache),
                slot_position_BS=jnp.concatenate([before_NT, kept.slot_position_BS], axis=1),
            )
        if slots:
            cache, position_BS = kv.grown(kept.cache, kept.slot_position_BS, slots)
            kept = kept._replace(cache=cache, slot_position_BS=position_BS)
        return self._placed(kept._replace(done_B=kept.done_B | filler_N))

    def grow(self, carry: Carry, slots: int) -> Carry:
        """The carry with so many slots, which takes the place of the one given.

        Layer by layer, and what a layer had is freed: two caches are never in memory together.
        """
        position_BS, layers = carry.slot_position_BS, []
        for k, v in zip(*carry.cache, strict=True):
            layer, position_BS = self.grow_layer(
                kv.KVCache((k,), (v,)), carry.slot_position_BS, slots
            )
            k.delete()
            v.delete()
            layers.append(layer)
        keys, values = zip(*((layer.k[0], layer.v[0]) for layer in layers), strict=True)
        return carry._replace(cache=kv.KVCache(keys, values), slot_position_BS=position_BS)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def grow_layer(
        self, layer: kv.KVCache, position_BS, slots: int
    ) -> tuple[kv.KVCache, jax.Array]:
        """A layer of the cache with so many slots, and what they hold."""
        constrain = jax.lax.with_sharding_constraint
        layer, position_BS = kv.grown(layer, position_BS, slots)
        return constrain(layer, self.cache_sharding), constrain(position_BS, self.rows)

    def _placed(self, carry: Carry) -> Carry:
        """The carry split over the mesh; XLA chooses where the keys go."""
        constrain = jax.lax.with_sharding_constraint
        rows = [name for name in Carry._fields if name not in ("cache", "key_B", "shared")]
        return carry._replace(
            cache=constrain(carry.cache, self.cache_sharding),
            **{name: constrain(getattr(carry, name), self.rows) for name in rows},
        )


def _prompt_positions(length_B: jax.Array, prompt_slots: int, slots: int) -> jax.Array:
    """int32 [B, S]: the position that each slot holds where only prompts are in the cache."""
    slot_S = jnp.arange(slots)
    position_BS = jnp.where(slot_S[None, :] < length_B[:, None], slot_S[None, :], -1)
    return jnp.where(slot_S[None, :] < prompt_slots, position_BS, -1)
