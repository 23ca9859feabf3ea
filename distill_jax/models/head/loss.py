"""Losses on the logits of tokens: weighted sums, and their gradient in the same pass.

The weight of each token in the loss (mask over count) is known in advance. So the gradients of
hidden states and head are summed while a chunk's logits are in memory: logits are computed once,
for the forward and the backward pass and for all terms.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from distill_jax.models.head.chunks import (
    Cut,
    chunk_logits,
    chunked,
    cut_of,
    through_head,
    valid_vocab_size,
)


class Term(NamedTuple):
    """One sum: Σ weights·value over tokens.

    Attributes:
        measure: (settings, logits_nV, rows, shared, vocab, slope) -> (value_n, slope_nV), both
            float32, of a chunk's tokens; slope_nV is ∂value/∂logits, None unless `slope`. value_nC:
            the first column is summed, the others are figures, returned alone.
            A module-level function, so that equal losses are compiled once.
        settings: its first argument.
        weights_N: float [N]; where it is 0, value may be anything, NaN included.
        rows: arrays [N, ...], passed to `measure` in chunks.
        shared: arrays passed whole.
        columns: vocabulary size of the logits that `measure` computes itself; 0 for none.
    """

    measure: Callable[..., tuple[jax.Array, jax.Array | None]]
    settings: Hashable
    weights_N: jax.Array
    rows: Any = ()
    shared: Any = ()
    columns: int = 0


def head_loss(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    terms: Sequence[Term],
    *,
    valid_vocab: int | None = None,
    chunk_tokens: int | None = None,
    shards: int = 1,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The sum of all terms on logits = hidden·headᵀ, and each term's value of each token.

    The sum has a gradient in hidden_ND, head_VD (summed in float32) and the weights (0 where a
    weight is 0); the other arrays of the terms and the values have none.

    Args:
        hidden_ND: float [N, D]; its dtype is the matmul's input dtype.
        head_VD: float [V, D].
        terms: of the loss.
        valid_vocab: rows from here on are padding and never enter, at most V and every term's
            columns. None = all rows, which must equal each term's columns.
        chunk_tokens: tokens of one chunk on each device; None chooses.
        shards: devices that the tokens are split over.

    Returns:
        float32 scalar; float32 [N] or [N, C] of each term.

    Raises:
        ConfigError: an impossible vocabulary or chunk.
    """
    chex.assert_rank([hidden_ND, head_VD], 2)
    for term in terms:
        chex.assert_rank(term.weights_N, 1)
        chex.assert_equal_shape_prefix(
            [hidden_ND, *jax.tree.leaves((term.weights_N, term.rows))], 1
        )
    sizes = (head_VD.shape[0], *(term.columns for term in terms if term.columns))
    vocab = valid_vocab_size(valid_vocab, *sizes)
    # The logits of student and teachers are in memory at once.
    cut = cut_of(hidden_ND.shape[0], sum(sizes), chunk_tokens, shards)
    call = _Call(tuple((term.measure, term.settings) for term in terms), vocab, cut)
    weights = tuple(term.weights_N.astype(jnp.float32) for term in terms)
    rows, shared = jax.lax.stop_gradient(
        (tuple(term.rows for term in terms), tuple(term.shared for term in terms))
    )
    total, values = _loss(call, hidden_ND, head_VD, weights, rows, shared)
    return total, jax.lax.stop_gradient(values)


class _Call(NamedTuple):
    """The static part of a call."""

    measures: tuple[tuple[Callable[..., Any], Hashable], ...]
    vocab: int
    cut: Cut


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(call: _Call, hidden_ND: Any, head_VD: Any, weights: Any, rows: Any, shared: Any) -> Any:
    return _pass(call, hidden_ND, head_VD, weights, rows, shared, (False, False))[0]


def _pass(
    call: _Call,
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    weights: tuple[jax.Array, ...],
    rows: Any,
    shared: Any,
    wanted: tuple[bool, bool],
) -> Any:
    """((sum, values), gradient in hidden, in the head); None where `wanted` says no."""
    cast_VD = head_VD.astype(hidden_ND.dtype)

    def one(head_grad_VD: Any, inputs: Any) -> Any:
        hidden_nD, weights_n, rows_n = inputs
        logits_nV = chunk_logits(hidden_nD, cast_VD, call.vocab)
        values, grad_nV, seen_n = [], None, jnp.zeros(hidden_nD.shape[0], bool)
        parts = zip(call.measures, weights_n, rows_n, shared, strict=True)
        for (measure, settings), weight_n, row, whole in parts:
            value_n, slope_nV = measure(settings, logits_nV, row, whole, call.vocab, any(wanted))
            values.append(value_n)
            if slope_nV is not None:
                seen_n |= weight_n != 0
                part_nV = jnp.where(weight_n[:, None] != 0, slope_nV, 0.0) * weight_n[:, None]
                grad_nV = part_nV if grad_nV is None else grad_nV + part_nV
        if grad_nV is None:
            return head_grad_VD, (values, None)
        # The head's gradient sums products with the hidden states: 0·NaN would be NaN.
        hidden_nD = jnp.where(seen_n[:, None], hidden_nD, 0.0)
        through = through_head(grad_nV, hidden_nD, cast_VD, head_grad_VD, wanted[0])
        return through[0], (values, through[1])

    start_VD = jnp.zeros(head_VD.shape, jnp.float32) if wanted[1] else None
    head_grad_VD, (values, hidden_grad_ND) = chunked(
        one, call.cut, (hidden_ND, weights, rows), start_VD
    )
    sums = [jnp.sum(_counted(w, v) * w) for w, v in zip(weights, values, strict=True)]
    total = sum(sums, start=jnp.zeros(()))
    if head_grad_VD is not None:
        head_grad_VD = head_grad_VD.astype(head_VD.dtype)
    return (total, tuple(values)), hidden_grad_ND, head_grad_VD


def _counted(weights_N: jax.Array, value_N: jax.Array) -> jax.Array:
    value_N = value_N if value_N.ndim == 1 else value_N[:, 0]
    return jnp.where(weights_N != 0, value_N, 0.0)


def _fwd(call: _Call, *primals: Any) -> Any:
    values = jax.tree.map(
        lambda x: x.value, primals, is_leaf=lambda x: isinstance(x, CustomVJPPrimal)
    )
    hidden_ND, head_VD, weights, rows, shared = values
    wanted = (primals[0].perturbed, primals[1].perturbed)
    out, *slopes = _pass(call, hidden_ND, head_VD, weights, rows, shared, wanted)
    per_weight = tuple(map(_counted, weights, out[1]))
    return out, (*slopes, per_weight)


def _bwd(call: _Call, slopes: Any, cotangents: Any) -> Any:
    scale, _ = cotangents  # the values have no gradient
    if isinstance(scale, SymbolicZero):
        return None, None, None, None, None
    scaled = jax.tree.map(lambda x: (x * scale).astype(x.dtype), slopes)
    return *scaled, None, None


_loss.defvjp(_fwd, _bwd, symbolic_zeros=True)
