"""One draw from a row of logits: temperature, top-k, top-p, and its log-probability.

The draw inverts the cumulative distribution with one uniform number for each row, in two levels of
about √V entries: a token costs one random number instead of V, and the short sums keep float32
accurate at any vocabulary size. A large vocabulary comes in blocks of these levels already.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Draw(NamedTuple):
    """token_B int32; logp_B f32 under the distribution drawn from, 0 when greedy."""

    token_B: jax.Array
    logp_B: jax.Array


def truncate(logits_BV: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits with −inf outside the top-k and the nucleus of mass top_p (Holtzman et al. 2020).

    The nucleus is the smallest set of most probable tokens whose mass reaches top_p; the most
    probable token always stays. Ties at either border all stay: of equal logits at that of top-k,
    of equal float32 probabilities at that of the nucleus.
    """
    if 0 < top_k < math.prod(logits_BV.shape[1:]):
        logits_BV = _top(logits_BV, top_k)
    return _nucleus(logits_BV, top_p) if top_p < 1.0 else logits_BV


def _top(logits_BV: jax.Array, k: int | jax.Array) -> jax.Array:
    """−inf outside the top k, an int or int32 [B, 1]."""
    border_B1 = _greatest_border(logits_BV, lambda from_BV: _count(from_BV) >= k)
    return jnp.where(logits_BV < border_B1, -jnp.inf, logits_BV)


def _nucleus(logits_BV: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """−inf outside the nucleus of mass top_p, a float or f32 [B, 1]."""
    tokens = _tokens(logits_BV)
    weight_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=tokens, keepdims=True))

    def mass(from_BV: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(from_BV, weight_BV, 0.0), axis=tokens, keepdims=True)

    # The empty set has mass 0, and top_p may be 0 in float32: the goal is more than that.
    goal_B1 = jnp.maximum(top_p * mass(weight_BV >= 0), jnp.finfo(jnp.float32).tiny)
    border_B1 = _greatest_border(weight_BV, lambda from_BV: mass(from_BV) >= goal_B1)
    return jnp.where(weight_BV < border_B1, -jnp.inf, logits_BV)


def _count(kept_BV: jax.Array) -> jax.Array:
    return jnp.sum(kept_BV, axis=_tokens(kept_BV), keepdims=True, dtype=jnp.int32)


def _tokens(x: jax.Array) -> tuple[int, ...]:
    """Axes of the vocabulary: [B, V], or [B, R, W]."""
    return tuple(range(1, x.ndim))


def _greatest_border(score_BV: jax.Array, reached: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """[B, 1] f32: the greatest number c for which reached(score_BV >= c) holds, NaN for none.

    It is built bit by bit, in 32 passes of O(V): XLA sorts a whole vocabulary for the k-th entry,
    too. `reached` maps bool_BV to bool_B1 and must not turn false when entries are added. A float32
    sum of numbers ≥ 0 in one fixed order does not fall then.
    """
    top = jnp.uint32(1 << 31)

    def as_float(key_B1: jax.Array) -> jax.Array:
        # Keys are ordered as the numbers are: the bits of a negative number count downwards.
        bits_B1 = jnp.where(key_B1 >= top, key_B1 ^ top, ~key_B1)
        return jax.lax.bitcast_convert_type(bits_B1, jnp.float32)

    def set_bit(i: jax.Array, key_B1: jax.Array) -> jax.Array:
        tried_B1 = key_B1 | (top >> i.astype(jnp.uint32))
        return jnp.where(reached(score_BV >= as_float(tried_B1)), tried_B1, key_B1)

    ones = [1] * (score_BV.ndim - 1)
    key_B1 = jnp.zeros((score_BV.shape[0], *ones), jnp.uint32)
    return as_float(jax.lax.fori_loop(0, 32, set_bit, key_B1))


def invert_cdf(prob_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """The index at which the cumulative sum of prob_BV (unnormalised, ≥ 0) passes u·total."""
    vocab = prob_BV.shape[-1]
    width = max(1, math.isqrt(vocab - 1) + 1)
    rows = -(-vocab // width)
    prob_BRW = jnp.pad(prob_BV, ((0, 0), (0, rows * width - vocab))).reshape(-1, rows, width)
    return _invert_blocks(prob_BRW, jnp.sum(prob_BRW, axis=-1), uniform_B)


def _invert_blocks(prob_BRW: jax.Array, mass_BR: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """`invert_cdf` of tokens in R blocks of W; mass_BR: their sums."""
    cum_BR = _cumulate(mass_BR)
    goal_B = uniform_B * cum_BR[:, -1]
    row_B = _first_past(mass_BR, cum_BR, goal_B)
    start_B = jnp.where(row_B > 0, _pick(cum_BR, jnp.maximum(row_B - 1, 0)), 0.0)
    inside_BW = _block(prob_BRW, row_B)
    column_B = _first_past(inside_BW, _cumulate(inside_BW), goal_B - start_B)
    return (row_B * prob_BRW.shape[-1] + column_B).astype(jnp.int32)


def _first_past(mass_BN: jax.Array, cum_BN: jax.Array, goal_B: jax.Array) -> jax.Array:
    """The first entry of some mass whose cumulative sum is beyond the goal.

    A matmul rounds each sum separately: the sums may rise at an entry without mass, which must
    never be drawn, or end just below the goal, which gives the last entry with mass.
    """
    possible_BN = mass_BN > 0
    passed_BN = (cum_BN > goal_B[:, None]) & possible_BN
    last_B = mass_BN.shape[1] - 1 - jnp.argmax(possible_BN[:, ::-1], axis=1)
    return jnp.where(jnp.any(passed_BN, axis=1), jnp.argmax(passed_BN, axis=1), last_B)


def _cumulate(x_BN: jax.Array) -> jax.Array:
    # A triangular product: one small matmul where XLA's CPU cumsum is log2(N) passes.
    upper_NN = jnp.triu(jnp.ones((x_BN.shape[-1], x_BN.shape[-1]), x_BN.dtype))
    return jnp.matmul(x_BN, upper_NN, precision=jax.lax.Precision.HIGHEST)


def draw(
    logits_BV: jax.Array, uniform_B: jax.Array, *, temperature: float, top_k: int, top_p: float
) -> Draw:
    """Draws one token for each row of f32 logits, −1e30 or less at tokens that do not exist.

    logits_BV is [B, V], or [B, R, W] of a head in R blocks of W tokens (`weights.head_logits`),
    whose sums need no copy. uniform_B is f32 in [0, 1). Temperature 0 is greedy (arg max, ties to
    the lowest id; logp_B is then 0); top_k 0 and top_p 1 are off.
    """
    if logits_BV.ndim == 3:
        return _draw_blocks(logits_BV, uniform_B, temperature, top_k, top_p)
    if temperature == 0.0:
        return _greedy(jnp.argmax(logits_BV, axis=-1))
    scaled_BV = logits_BV / temperature
    cut_BV = truncate(scaled_BV, top_k, top_p)
    max_B1 = jnp.max(cut_BV, axis=-1, keepdims=True)
    prob_BV = jnp.exp(cut_BV - max_B1)
    token_B = invert_cdf(prob_BV, uniform_B)
    chosen_B = _pick(scaled_BV, token_B)
    return Draw(token_B, chosen_B - max_B1[:, 0] - jnp.log(jnp.sum(prob_BV, axis=-1)))


def _draw_blocks(
    logits_BRW: jax.Array, uniform_B: jax.Array, temperature: float, top_k: int, top_p: float
) -> Draw:
    width = logits_BRW.shape[-1]
    if temperature == 0.0:
        row_B = jnp.argmax(jnp.max(logits_BRW, axis=-1), axis=-1)
        return _greedy(row_B * width + jnp.argmax(_block(logits_BRW, row_B), axis=-1))
    scaled_BRW = logits_BRW / temperature
    cut_BRW = truncate(scaled_BRW, top_k, top_p)
    max_B = jnp.max(cut_BRW, axis=(1, 2))
    prob_BRW = jnp.exp(cut_BRW - max_B[:, None, None])
    mass_BR = jnp.sum(prob_BRW, axis=-1)
    token_B = _invert_blocks(prob_BRW, mass_BR, uniform_B)
    chosen_B = _pick(_block(scaled_BRW, token_B // width), token_B % width)
    return Draw(token_B, chosen_B - max_B - jnp.log(jnp.sum(mass_BR, axis=-1)))


def _greedy(token_B: jax.Array) -> Draw:
    return Draw(token_B.astype(jnp.int32), jnp.zeros(token_B.shape, jnp.float32))


def draw_rows(
    logits_BV: jax.Array,
    uniform_B: jax.Array,
    *,
    temperature_B: jax.Array,
    top_k_B: jax.Array,
    top_p_B: jax.Array,
) -> Draw:
    """As `draw`, with settings of each row: f32, int32, f32 arrays [B].

    The same token as `draw` gives with a row's settings; logp_B is log softmax(logits) of it, at
    temperature 1 and of all tokens, whatever it was drawn with.
    """
    vocab, greedy_B = logits_BV.shape[-1], temperature_B == 0.0
    scaled_BV = logits_BV / jnp.where(greedy_B, 1.0, temperature_B)[:, None]
    k_B1 = jnp.where((top_k_B > 0) & (top_k_B < vocab), top_k_B, vocab)[:, None]
    p_B1 = top_p_B[:, None]

    def top(x_BV: jax.Array) -> jax.Array:
        return jnp.where(k_B1 < vocab, _top(x_BV, k_B1), x_BV)

    def nucleus(x_BV: jax.Array) -> jax.Array:
        return jnp.where(p_B1 < 1.0, _nucleus(x_BV, p_B1), x_BV)

    # The passes over the vocabulary are skipped where no row asks for them.
    cut_BV = jax.lax.cond(jnp.any(k_B1 < vocab), top, lambda x: x, scaled_BV)
    cut_BV = jax.lax.cond(jnp.any(p_B1 < 1.0), nucleus, lambda x: x, cut_BV)
    prob_BV = jnp.exp(cut_BV - jnp.max(cut_BV, axis=-1, keepdims=True))
    drawn_B = invert_cdf(prob_BV, uniform_B)
    token_B = jnp.where(greedy_B, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), drawn_B)
    return Draw(token_B, _pick(jax.nn.log_softmax(logits_BV), token_B))


def _pick(x_BV: jax.Array, index_B: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BV, index_B[:, None], axis=-1)[:, 0]


def _block(x_BRW: jax.Array, row_B: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BRW, row_B[:, None, None], axis=1)[:, 0]
