"""Decoding of requests that come and go: rows of one batch, each with its own prompt and settings.

All rows write to the same cache slot at a step, as in the rollout's sampler, but the slots of drawn
tokens are a ring: a row may begin at any step. Prompts have slots 0..P−1 of their row, and a row
that draws at most N tokens never overwrites its own. One program decodes, whatever the requests
are; one prefills and one inserts a prompt for each of a few prompt widths.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import rng
from distill_jax.data.batching import bucket
from distill_jax.models.cache import KVCache
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.sampling import draw_rows
from distill_jax.rollout.weights import head_logits

_SMALLEST = 64


class Decoding(NamedTuple):
    """How a row is drawn; number: of the sample, of those with one seed."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    number: int = 0


class _State(NamedTuple):
    """hidden_BD predicts each row's next token, which has position place_B and number step_B."""

    hidden_BD: jax.Array
    cache: KVCache
    slot_position_BS: jax.Array
    place_B: jax.Array
    step_B: jax.Array
    key_B2: jax.Array


def widths(longest: int) -> tuple[int, ...]:
    """Padded lengths of prompts up to `longest` tokens: powers of two times 64, and the last."""
    sizes = [_SMALLEST]
    while sizes[-1] < longest:
        sizes.append(min(2 * sizes[-1], -(-longest // 8) * 8))
    return tuple(sizes)


def row_key(how: Decoding) -> np.ndarray:
    """Key data uint32 [2] of a row: that of prompt 0 and this sample in `Sampler.generate`."""
    key = rng.sample_keys(rng.run_key(how.seed), jnp.zeros(1, jnp.uint32), _number(how.number))
    return np.asarray(jax.random.key_data(key))[0]


def _number(number: int) -> jax.Array:
    return jnp.asarray([number], jnp.uint32)


class Slots:
    """Rows that draw, by number; a row without a request is free.

    Args:
        model: without an adapter: its decode weights have it merged, or apart.
        weights: of `Sampler.weights`.
        rows: B.
        prompt: longest prompt in tokens, P.
        new: most tokens of a completion, N.
        steps: of a segment, between which rows begin and end.
    """

    def __init__(
        self, model: QwenModel, weights: Any, *, rows: int, prompt: int, new: int, steps: int
    ):
        self.weights, self.rows, self.new, self.steps = weights, rows, new, min(steps, new)
        self.widths = widths(prompt)
        self._programs = _Programs(model, self.widths[-1], new, self.steps)
        self._state = self._programs.empty(weights, rows)
        self._time = 0
        self._settings: list[Decoding | None] = [None] * rows

    def warm_up(self) -> None:
        """Compiles what decodes, so that the first requests do not wait for it."""
        for width in self.widths:
            self.begin([0], [0] * width, [Decoding(temperature=0.0)])
            self.end(0)
        self.segment()

    @property
    def free(self) -> list[int]:
        """Numbers of the rows without a request."""
        return [row for row, one in enumerate(self._settings) if one is None]

    def begin(self, rows: Sequence[int], prompt: Sequence[int], hows: Sequence[Decoding]) -> None:
        """Gives free rows one prompt; each draws as its own settings say."""
        tokens_1T = np.zeros((1, bucket(len(prompt), self.widths)), np.int32)
        tokens_1T[0, : len(prompt)] = prompt
        length_1 = np.array([len(prompt)], np.int32)
        hidden_1D, cache = self._programs.prefill(self.weights, tokens_1T, length_1)
        for row, how in zip(rows, hows, strict=True):
            self._settings[row] = how
            key = row_key(how)
            self._state = self._programs.insert(
                self._state, hidden_1D, cache, np.int32(row), length_1[0], key
            )

    def end(self, row: int) -> None:
        """Frees a row."""
        self._settings[row] = None

    def segment(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws `steps` tokens in every row: tokens_BN int32, logp_BN f32; free rows' mean nothing.

        A row that has ended within the segment goes on: what it draws then means nothing either.
        """
        given = [one or Decoding(temperature=0.0) for one in self._settings]
        settings = {
            "temperature_B": np.array([one.temperature for one in given], np.float32),
            "top_p_B": np.array([one.top_p for one in given], np.float32),
            "top_k_B": np.array([one.top_k for one in given], np.int32),
        }
        self._state, (tokens_NB, logp_NB) = self._programs.segment(
            self.weights, self._state, np.int32(self._time), settings
        )
        self._time = (self._time + self.steps) % self.new
        return np.asarray(tokens_NB).T, np.asarray(logp_NB).T


class _Programs:
    """What is compiled; equal sizes share it."""

    def __init__(self, model: QwenModel, prompt: int, new: int, steps: int):
        self.model, self.prompt, self.new, self.steps = model, prompt, new, steps
        self.prefill = jax.jit(lambda weights, *rest: model.prefill(weights["body"], *rest))
        self.insert = jax.jit(self._insert, donate_argnums=0)
        self.segment = jax.jit(self._segment, donate_argnums=1)

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def empty(self, weights: Any, rows: int) -> _State:
        config = self.model.config
        slots, dtype = self.prompt + self.new, self.model.compute_dtype
        shape = (rows, config.num_kv_heads)
        keys = [jnp.zeros((*shape, config.head_dim, slots), dtype)] * config.num_layers
        values = [jnp.zeros((*shape, slots, config.head_dim), dtype)] * config.num_layers
        return _State(
            jnp.zeros((rows, config.hidden_size), weights["head_RWD"].dtype),
            KVCache(tuple(keys), tuple(values)),
            jnp.full((rows, slots), -1, jnp.int32),
            jnp.zeros(rows, jnp.int32),
            jnp.zeros(rows, jnp.int32),
            jnp.zeros((rows, 2), jnp.uint32),
        )

    def _insert(self, state: _State, hidden_1D, prompt: KVCache, row, length, key_2) -> _State:
        """The state with a prefilled prompt in a row, and none of the row's earlier tokens."""

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            old = old.at[row].set(0)  # attention gives a NaN of the request before no weight of 0
            start = (row, *(jnp.int32(0) for _ in range(old.ndim - 1)))
            return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

        slot_S = jnp.arange(self.prompt + self.new)
        position_S = jnp.where(slot_S < length, slot_S, -1)
        return _State(
            state.hidden_BD.at[row].set(hidden_1D[0].astype(state.hidden_BD.dtype)),
            jax.tree.map(put, state.cache, prompt),
            state.slot_position_BS.at[row].set(position_S),
            state.place_B.at[row].set(length),
            state.step_B.at[row].set(0),
            state.key_B2.at[row].set(key_2),
        )

    def _segment(self, weights: Any, state: _State, time, settings: dict[str, Any]) -> Any:
        keys_B = jax.random.wrap_key_data(state.key_B2)

        def body(state: _State, t: jax.Array) -> Any:
            logits_BV = head_logits(weights, state.hidden_BD).reshape(len(keys_B), -1)
            uniform_B = jax.vmap(lambda k, n: jax.random.uniform(jax.random.fold_in(k, n)))(
                keys_B, state.step_B
            )
            drawn = draw_rows(logits_BV, uniform_B, **settings)
            slot = self.prompt + (time + t) % self.new
            position_BS = jax.lax.dynamic_update_slice(
                state.slot_position_BS, state.place_B[:, None], (0, slot)
            )
            hidden_BD, cache = self.model.decode(
                weights["body"], drawn.token_B, state.place_B, state.cache, slot, position_BS
            )
            return _State(
                hidden_BD, cache, position_BS, state.place_B + 1, state.step_B + 1, state.key_B2
            ), tuple(drawn)

        return jax.lax.scan(body, state, jnp.arange(self.steps))
