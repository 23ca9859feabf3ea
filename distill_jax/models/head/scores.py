"""Scores of each token from hidden states and the LM head, in chunks of tokens.

Logits [N, V] of a whole batch are never in memory. The backward pass has three cases:
one chunk: its logits are kept; many chunks and a frozen head: the forward pass also computes each
output's gradient, which the cotangents only scale; many chunks and a trained head: the logits are
computed again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from distill_jax.core.errors import ConfigError
from distill_jax.models.head.chunks import (
    Cut,
    chunk_logits,
    chunked,
    cut_of,
    through_head,
    valid_vocab_size,
)


class TokenScores(NamedTuple):
    """Scores of each token, float32.

    Attributes:
        logit_N: logit of the target, at temperature 1.
        lse_AN: logsumexp(logits/α) for each α; α times it is the soft value V.
        logp_N: log softmax(logits/temperature)[target].
        entropy_N: entropy of softmax(logits/temperature), nats; None unless asked.
        hit_N: 1 where no token has a larger logit than the target; None unless asked. No gradient.
    """

    logit_N: jax.Array
    lse_AN: jax.Array
    logp_N: jax.Array
    entropy_N: jax.Array | None
    hit_N: jax.Array | None = None


class _Wanted(NamedTuple):
    """The static part of a call."""

    scales: tuple[float, ...]  # distinct; the first is the temperature
    alpha_index: tuple[int, ...]  # index of each α in scales
    valid_vocab: int
    entropy: bool
    hits: bool
    cut: Cut


def head_scores(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    targets_N: jax.Array,
    *,
    temperature: float = 1.0,
    alphas: Sequence[float] = (),
    valid_vocab: int | None = None,
    entropy: bool = False,
    hits: bool = False,
    chunk_tokens: int | None = None,
    shards: int = 1,
) -> TokenScores:
    """Scores of N tokens under logits = hidden·headᵀ, with gradients in hidden and head.

    Args:
        hidden_ND: hidden states that predict the targets, float [N, D]. Its dtype is the matmul's
            input dtype (the head is cast to it); sums and results are float32.
        head_VD: output embedding, float [V, D]. Its gradient is summed in float32.
        targets_N: int [N], below valid_vocab; elsewhere the scores are meaningless.
        temperature: divides the logits of logp and entropy, > 0.
        alphas: soft temperatures for lse_AN, each > 0.
        valid_vocab: rows from here on are padding and excluded; None = all rows.
        entropy: whether to return entropy_N.
        hits: whether to return hit_N.
        chunk_tokens: tokens of one chunk on each device; None chooses by CHUNK_ELEMENTS.
        shards: devices that the tokens are split over.

    Raises:
        ConfigError: a temperature, alpha, valid_vocab or chunk_tokens that is impossible.
    """
    chex.assert_rank([hidden_ND, head_VD, targets_N], [2, 2, 1])
    chex.assert_type([hidden_ND, head_VD, targets_N], [float, float, int])
    chex.assert_equal_shape_prefix([hidden_ND, targets_N], 1)
    scales = (float(temperature), *map(float, alphas))
    if min(scales) <= 0.0:
        got = f"temperature={temperature}, alphas={tuple(alphas)}"
        raise ConfigError(got, wanted="every one above 0")
    vocab = valid_vocab_size(valid_vocab, head_VD.shape[0])
    distinct = tuple(dict.fromkeys(scales))
    wanted = _Wanted(
        scales=distinct,
        alpha_index=tuple(distinct.index(scale) for scale in scales[1:]),
        valid_vocab=vocab,
        entropy=entropy,
        hits=hits,
        cut=cut_of(hidden_ND.shape[0], head_VD.shape[0], chunk_tokens, shards),
    )
    return _scores(wanted, hidden_ND, head_VD, targets_N)


# --- one chunk -----------------------------------------------------------------------------------


def _measure(wanted: _Wanted, logits_NV: jax.Array, targets_N: jax.Array) -> dict[str, Any]:
    """The scores of a chunk's tokens, tokens on the first axis."""
    peak_N1 = jnp.max(logits_NV, axis=1, keepdims=True)
    centred_NV = logits_NV - peak_N1
    lse = []
    for scale in wanted.scales:
        total_N = jnp.sum(jnp.exp(centred_NV / scale), axis=1)
        lse.append(jnp.log(total_N) + peak_N1[:, 0] / scale)
    kept: dict[str, Any] = {
        "logit": jnp.take_along_axis(logits_NV, targets_N[:, None], axis=1, mode="clip")[:, 0],
        "lse": jnp.stack(lse, axis=1),
    }
    if wanted.hits:
        kept["hit"] = (kept["logit"] >= peak_N1[:, 0]).astype(jnp.float32)
    if wanted.entropy:
        # H = lse − Σ p·z/T, both taken from the peak, where they are small.
        scaled_NV = centred_NV / wanted.scales[0]
        near_N = lse[0] - peak_N1[:, 0] / wanted.scales[0]
        mean_N = jnp.sum(jnp.exp(scaled_NV - near_N[:, None]) * scaled_NV, axis=1)
        kept["entropy"] = near_N - mean_N
    return kept


def _as_scores(wanted: _Wanted, kept: dict[str, Any]) -> TokenScores:
    lse_NA = kept["lse"]
    alphas = [lse_NA[:, index] for index in wanted.alpha_index]
    return TokenScores(
        logit_N=kept["logit"],
        lse_AN=jnp.stack(alphas) if alphas else jnp.zeros((0, lse_NA.shape[0]), jnp.float32),
        logp_N=kept["logit"] / wanted.scales[0] - lse_NA[:, 0],
        entropy_N=kept.get("entropy"),
        hit_N=kept.get("hit"),
    )


def _logit_gradient(wanted: _Wanted, logits_NV: jax.Array, rows: dict[str, Any]) -> jax.Array:
    """∂/∂logits of Σ cotangent·kept, [N, V]: p_s/s for a logsumexp, −p(log p + H)/T for H."""
    grad_NV = jnp.zeros_like(logits_NV)
    for index, scale in enumerate(wanted.scales):
        if f"d_lse{index}" not in rows and not (index == 0 and "d_entropy" in rows):
            continue
        logp_NV = logits_NV / scale - rows["lse"][:, index, None]
        weight = rows.get(f"d_lse{index}", jnp.zeros(()))[..., None]
        if index == 0 and "d_entropy" in rows:
            surprise_NV = logp_NV + rows["entropy"][:, None]
            weight = weight - rows["d_entropy"][:, None] * surprise_NV
        grad_NV += jnp.exp(logp_NV) * weight / scale
    if "d_logit" in rows:
        # Compared, not scattered: it fuses with the rest.
        hit_NV = jnp.arange(logits_NV.shape[1]) == rows["targets"][:, None]
        grad_NV += jnp.where(hit_NV, rows["d_logit"][:, None], 0.0)
    return grad_NV


# --- the primitive -------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(
    wanted: _Wanted, hidden_ND: jax.Array, head_VD: jax.Array, targets_N: jax.Array
) -> TokenScores:
    return _as_scores(wanted, _forward(wanted, hidden_ND, head_VD, targets_N, False)[0])


def _forward(
    wanted: _Wanted, hidden_ND: jax.Array, head_VD: jax.Array, targets_N: jax.Array, slopes: bool
) -> tuple[dict[str, Any], jax.Array | None, dict[str, jax.Array]]:
    """The scores, the logits if there is one chunk, and `_slopes` if asked."""
    head_VD = head_VD.astype(hidden_ND.dtype)
    if wanted.cut.chunks == 1:
        logits_NV = chunk_logits(hidden_ND, head_VD, wanted.valid_vocab)
        return _measure(wanted, logits_NV, targets_N), logits_NV, {}

    def one(carry: Any, rows: Any) -> Any:
        hidden_nD, targets_n = rows
        logits_nV = chunk_logits(hidden_nD, head_VD, wanted.valid_vocab)
        kept = _measure(wanted, logits_nV, targets_n)
        # XLA removes the slopes that the backward pass does not use.
        return carry, (kept, _slopes(wanted, logits_nV, rows, kept, head_VD) if slopes else {})

    _, (kept, slope) = chunked(one, wanted.cut, (hidden_ND, targets_N))
    return kept, None, slope


def _slopes(
    wanted: _Wanted, logits_NV: jax.Array, rows: Any, kept: dict[str, Any], head_VD: jax.Array
) -> dict[str, jax.Array]:
    """∂output/∂hidden of each output, [N, D]; the logit's is its row of the head."""
    hidden_ND, targets_N = rows
    one_N = jnp.ones(targets_N.shape, jnp.float32)
    fixed = {**kept, "targets": targets_N}
    # logp as one output: logit and logsumexp cancel where the token is nearly certain.
    asked = {"d_logp": {"d_logit": one_N / wanted.scales[0], "d_lse0": -one_N}}
    asked |= {f"d_lse{index}": {f"d_lse{index}": one_N} for index in set(wanted.alpha_index)}
    if wanted.entropy:
        asked["d_entropy"] = {"d_entropy": one_N}
    out = {}
    for name, unit in asked.items():
        grad_NV = _logit_gradient(wanted, logits_NV, {**fixed, **unit})
        slope_ND = through_head(grad_NV, hidden_ND, head_VD, None, True)[1]
        assert slope_ND is not None
        out[name] = slope_ND
    return out


def _scores_fwd(wanted: _Wanted, hidden: Any, head: Any, targets: Any) -> Any:
    slopes = hidden.perturbed and not head.perturbed
    arrays = (hidden.value, head.value, targets.value)
    kept, logits_NV, slope = _forward(wanted, *arrays, slopes)
    # () or None: a flag that may pass as a pytree.
    flags = (() if hidden.perturbed else None, () if head.perturbed else None)
    return _as_scores(wanted, kept), (arrays, kept, logits_NV, slope, flags)


def _cotangents(wanted: _Wanted, out: TokenScores) -> dict[str, jax.Array]:
    """Cotangents of logit, logp, each logsumexp and entropy that are not symbolic zeros."""
    each = {"d_logit": out.logit_N, "d_logp": out.logp_N, "d_entropy": out.entropy_N}
    rows = {
        name: x for name, x in each.items() if x is not None and not isinstance(x, SymbolicZero)
    }
    if not isinstance(out.lse_AN, SymbolicZero):
        for row, index in enumerate(wanted.alpha_index):
            rows[f"d_lse{index}"] = rows.get(f"d_lse{index}", 0.0) + out.lse_AN[row]
    return rows


def _scores_bwd(wanted: _Wanted, saved: Any, out: TokenScores) -> Any:
    (hidden_ND, head_VD, targets_N), kept, logits_NV, slope, (want_hidden, want_head) = saved
    rows: dict[str, Any] = _cotangents(wanted, out)
    if not rows:
        return None, None, None
    if slope:
        grad_ND = sum(slope[name] * rows[name][:, None] for name in slope if name in rows)
        if "d_logit" in rows:
            grad_ND += head_VD[targets_N] * rows["d_logit"][:, None]
        return grad_ND.astype(hidden_ND.dtype), None, None
    if "d_logp" in rows:
        cotangent_N = rows.pop("d_logp")
        rows["d_logit"] = rows.get("d_logit", 0.0) + cotangent_N / wanted.scales[0]
        rows["d_lse0"] = rows.get("d_lse0", 0.0) - cotangent_N
    rows |= {"targets": targets_N, "lse": kept["lse"]}
    if "entropy" in kept:
        rows["entropy"] = kept["entropy"]
    cast_VD = head_VD.astype(hidden_ND.dtype)

    def one(head_grad: Any, inputs: Any) -> Any:
        hidden_nD, logits_nV, rows_n = inputs
        if logits_nV is None:
            logits_nV = chunk_logits(hidden_nD, cast_VD, wanted.valid_vocab)
        grad_nV = _logit_gradient(wanted, logits_nV, rows_n)
        return through_head(grad_nV, hidden_nD, cast_VD, head_grad, want_hidden is not None)

    start = None if want_head is None else jnp.zeros(head_VD.shape, jnp.float32)
    inputs = (hidden_ND, logits_NV, rows)
    head_grad, hidden_grad = chunked(one, wanted.cut, inputs, start)
    return hidden_grad, None if head_grad is None else head_grad.astype(head_VD.dtype), None


_scores.defvjp(_scores_fwd, _scores_bwd, symbolic_zeros=True)
