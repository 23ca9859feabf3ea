"""Rows that hold a prompt once and all its responses.

A row is prompt ++ padding, then G times response ++ padding: int32 [P, W], W = S + G·R. A response
attends to the prompt and to itself, and its positions continue the prompt's. So every state is that
in a row with this response alone, and the prompt passes the layers once, not G times (Prefix
Grouper, arXiv 2506.05433).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.kernels.logprob import shifted
from distill_jax.models.attention import Implementation, attention, masked
from distill_jax.models.splash import Splash


class Groups(NamedTuple):
    """The layout of prompts and responses in rows [P, W].

    Made inside a jitted function: its numbers are Python's.

    Attributes:
        length_P: int32, tokens of each prompt, at least 1.
        columns: S, of a prompt.
        samples: G, responses to it.
    """

    length_P: jax.Array
    columns: int
    samples: int

    @property
    def length_B(self) -> jax.Array:
        """Tokens of each response's prompt, int32 [B], B = P·G."""
        return jnp.repeat(self.length_P, self.samples)

    def longest(self, width: int) -> int:
        """Tokens of a prompt with a response, S + R, in rows of so many."""
        return self.columns + (width - self.columns) // self.samples

    def positions(self, width: int) -> jax.Array:
        """int32 [P, width] of rows of so many tokens."""
        S, G = self.columns, self.samples
        own_R = jnp.arange((width - S) // G)
        own_PN = jnp.tile(self.length_P[:, None] + own_R, (1, G))  # N = G·R
        prompt_PS = jnp.broadcast_to(jnp.arange(S), (len(self.length_P), S))
        return jnp.concatenate([prompt_PS, own_PN], axis=1)

    def split(self, x_PW: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[P, S, ...] of prompts and [B, R, ...] of responses, from rows."""
        S, rest = self.columns, x_PW.shape[2:]
        rows = len(self.length_P) * self.samples
        return x_PW[:, :S], x_PW[:, S:].reshape(rows, -1, *rest)

    def join(self, prompt_PS: jax.Array, own_BR: jax.Array) -> jax.Array:
        """Rows [P, W, ...], from their parts."""
        rows = len(self.length_P), -1, *own_BR.shape[2:]
        return jnp.concatenate([prompt_PS, own_BR.reshape(rows)], axis=1)

    def states(self, hidden_PWD: jax.Array, size: int) -> jax.Array:
        """States [B, size, D] that the response tokens are drawn from, size at most R + 1."""
        prompt_PSD, own_BRD = self.split(hidden_PWD)
        last_P1D = shifted(prompt_PSD, self.length_P - 1, 1)
        last_B1D = jnp.repeat(last_P1D, self.samples, axis=0)
        return jnp.concatenate([last_B1D, own_BRD], axis=1)[:, :size]


def rows_of(prompts_PS: jax.Array, response_BR: jax.Array) -> jax.Array:
    """Tokens of rows, int32 [P, W], from those of prompts and of their responses [P·G, R]."""
    return jnp.concatenate([prompts_PS, response_BR.reshape(len(prompts_PS), -1)], axis=1)


def attend(
    q_PWHh: jax.Array,
    k_PWKh: jax.Array,
    v_PWKh: jax.Array,
    *,
    groups: Groups,
    window: int | jax.Array | None = None,
    implementation: Implementation = "products",
) -> jax.Array:
    """As `attention.attention`, of rows of groups: [P, W, H·h].

    With a mask the responses' queries alone attend to prompt and response. The TPU's kernel takes
    no mask, and cuDNN reads one as a bias [B, H, T, T]: both get whole rows, prompt ++ response
    without a gap, made of copies of the prompt's keys, and attend to the prompt in each.
    """
    (q_PSHh, q_BRHh), (k_PSKh, k_BRKh), (v_PSKh, v_BRKh) = map(
        groups.split, (q_PWHh, k_PWKh, v_PWKh)
    )
    if implementation == "cudnn" or isinstance(implementation, Splash):
        return _in_whole_rows(
            groups, (q_PSHh, k_PSKh, v_PSKh), (q_BRHh, k_BRKh, v_BRKh), window, implementation
        )
    of_prompt = attention(q_PSHh, k_PSKh, v_PSKh, window=window, implementation=implementation)
    keys, values = (
        jnp.concatenate([jnp.repeat(prompt, groups.samples, axis=0), own], axis=1)
        for prompt, own in ((k_PSKh, k_BRKh), (v_PSKh, v_BRKh))
    )
    mask_B1RT = _seen(groups, q_BRHh.shape[1], window)
    own = masked(q_BRHh, keys, values, mask_B1RT, implementation=implementation)
    return groups.join(of_prompt, own)


def _seen(groups: Groups, size: int, window: int | jax.Array | None) -> jax.Array:
    """bool [B, 1, R, S + R]: which keys of its prompt and of itself a response's token sees."""
    length_B, own_R, prompt_S = groups.length_B, jnp.arange(size), jnp.arange(groups.columns)
    real_BS = prompt_S < length_B[:, None]
    seen_BRS = jnp.broadcast_to(real_BS[:, None], (len(length_B), size, groups.columns))
    distance_RR = own_R[:, None] - own_R
    seen_RR = distance_RR >= 0
    if window is not None:
        position_BR = length_B[:, None] + own_R
        seen_BRS &= position_BR[:, :, None] - prompt_S < window
        seen_RR &= distance_RR < window
    seen_BRR = jnp.broadcast_to(seen_RR, (len(length_B), size, size))
    return jnp.concatenate([seen_BRS, seen_BRR], axis=2)[:, None]


def _in_whole_rows(groups, prompt, own, window, implementation) -> jax.Array:
    length_B, S = groups.length_B, groups.columns
    size = own[0].shape[1]
    in_prompt_BT = jnp.arange(S + size) < length_B[:, None]

    def whole(prompt_PSh: jax.Array, own_BRh: jax.Array) -> jax.Array:
        ahead = jnp.pad(prompt_PSh, [(0, 0), (0, size), (0, 0), (0, 0)])
        behind = shifted(own_BRh, -length_B, S + size)
        ahead = jnp.repeat(ahead, groups.samples, axis=0)
        return jnp.where(in_prompt_BT[:, :, None, None], ahead, behind)

    rows = map(whole, prompt, own)
    out_BTE = attention(*rows, window=window, implementation=implementation)
    of_prompt = out_BTE.reshape(len(groups.length_P), groups.samples, *out_BTE.shape[1:])[:, 0, :S]
    return groups.join(of_prompt, shifted(out_BTE, length_B, size))
