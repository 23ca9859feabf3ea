"""Divergence between teacher and student at each token, through both LM heads in chunks."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch, divergence_of_logp
from distill_jax.models.head_chunks import (
    chunk_logits,
    chunked,
    num_chunks,
    through_head,
    valid_vocab_size,
)


class _Wanted(NamedTuple):
    """The static part of a call; `kind` is after the branch at β = 0 and 1."""

    kind: str
    beta: float
    temperature: float
    vocab: int
    chunks: int


def head_divergence(
    student_hidden_ND: jax.Array,
    student_head_VD: jax.Array,
    teacher_hidden_NE: jax.Array,
    teacher_head_WE: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
    valid_vocab: int | None = None,
    chunk_tokens: int | None = None,
) -> jax.Array:
    """T²·divergence of teacher P and student Q over the shared vocabulary, at each token.

    Definitions in `kernels.divergence`. The gradient goes to the student only.

    Args:
        student_hidden_ND: float [N, D].
        student_head_VD: float [V, D].
        teacher_hidden_NE: float [N, E].
        teacher_head_WE: float [W, E]; W may differ from V.
        kind: "forward" KL(P‖Q), "reverse" KL(Q‖P) or "jsd".
        beta: β of "jsd"; 0 means forward, 1 reverse.
        temperature: distillation temperature T > 0.
        valid_vocab: tokens that both share, at most min(V, W); rows from here on never enter.
            None = all rows, for which V must equal W.
        chunk_tokens: tokens of one chunk; None chooses.

    Returns:
        float32 [N], nats.

    Raises:
        ConfigError: an impossible kind, beta, temperature or vocabulary.
    """
    chex.assert_rank([student_hidden_ND, student_head_VD], 2)
    chex.assert_rank([teacher_hidden_NE, teacher_head_WE], 2)
    chex.assert_equal_shape_prefix([student_hidden_ND, teacher_hidden_NE], 1)
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    sizes = (student_head_VD.shape[0], teacher_head_WE.shape[0])
    if valid_vocab is None and sizes[0] != sizes[1]:
        got = f"heads of {sizes[0]} (student) and {sizes[1]} (teacher) rows"
        raise ConfigError(got, fix="set valid_vocab to the number of tokens that both share")
    branched = branch(kind, float(beta))
    wanted = _Wanted(
        kind=branched,
        beta=float(beta) if branched == "jsd" else 0.0,
        temperature=float(temperature),
        vocab=valid_vocab_size(valid_vocab, min(sizes)),
        # Both sides' logits stand at once.
        chunks=num_chunks(student_hidden_ND.shape[0], sum(sizes), chunk_tokens),
    )
    teacher = jax.lax.stop_gradient((teacher_hidden_NE, teacher_head_WE))
    return _divergence(wanted, student_hidden_ND, student_head_VD, *teacher)


def _logp(wanted: _Wanted, hidden_ND: jax.Array, head_VD: jax.Array) -> jax.Array:
    # The shared columns are cut from the logits: cutting the head would copy it.
    logits_NV = chunk_logits(hidden_ND, head_VD)[:, : wanted.vocab]
    return jax.nn.log_softmax(logits_NV / wanted.temperature, axis=1)


def _value(wanted: _Wanted, logp_NV: jax.Array, logq_NV: jax.Array) -> jax.Array:
    value_N = divergence_of_logp(logp_NV, logq_NV, kind=wanted.kind, beta=wanted.beta)
    return wanted.temperature**2 * value_N


def _logit_gradient(wanted: _Wanted, logp_NV: jax.Array, logq_NV: jax.Array) -> jax.Array:
    """∂(T²·divergence)/∂(student logits), [N, V].

    Forward: T(q − p). Otherwise T·q⊙(g − Σ q·g), with g = log q − log p for reverse and
    (1−β)(log q − log m) for JSD.
    """
    q_NV = jnp.exp(logq_NV)
    if wanted.kind == "forward":
        return wanted.temperature * (q_NV - jnp.exp(logp_NV))
    if wanted.kind == "reverse":
        slope_NV = logq_NV - logp_NV
    else:
        beta = wanted.beta
        logm_NV = jnp.logaddexp(logp_NV + jnp.log(beta), logq_NV + jnp.log1p(-beta))
        slope_NV = (1.0 - beta) * (logq_NV - logm_NV)
    mean_N1 = jnp.sum(q_NV * slope_NV, axis=1, keepdims=True)
    return wanted.temperature * q_NV * (slope_NV - mean_N1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divergence(
    wanted: _Wanted,
    student_ND: jax.Array,
    student_head_VD: jax.Array,
    teacher_NE: jax.Array,
    teacher_head_WE: jax.Array,
) -> jax.Array:
    return _forward(wanted, student_ND, student_head_VD, teacher_NE, teacher_head_WE, False)[0]


def _forward(
    wanted: _Wanted,
    student_ND: jax.Array,
    student_head_VD: jax.Array,
    teacher_NE: jax.Array,
    teacher_head_WE: jax.Array,
    gradient: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """The divergence [N] and, if asked, its gradient in the student's hidden states [N, D]."""
    student_head_VD = student_head_VD.astype(student_ND.dtype)
    teacher_head_WE = teacher_head_WE.astype(teacher_NE.dtype)

    def one(carry: Any, rows: Any) -> Any:
        student_nD, teacher_nE = rows
        logp_nV = _logp(wanted, teacher_nE, teacher_head_WE)
        logq_nV = _logp(wanted, student_nD, student_head_VD)
        slope_nD = None
        if gradient:
            grad_nV = _to_rows(_logit_gradient(wanted, logp_nV, logq_nV), student_head_VD)
            _, slope_nD = through_head(grad_nV, student_nD, student_head_VD, None, True)
        return carry, (_value(wanted, logp_nV, logq_nV), slope_nD)

    return chunked(one, wanted.chunks, (student_ND, teacher_NE))[1]


def _to_rows(grad_NV: jax.Array, head_VD: jax.Array) -> jax.Array:
    return jnp.pad(grad_NV, ((0, 0), (0, head_VD.shape[0] - grad_NV.shape[1])))


def _fwd(wanted: _Wanted, student: Any, student_head: Any, teacher: Any, teacher_head: Any):
    arrays = (student.value, student_head.value, teacher.value, teacher_head.value)
    if student_head.perturbed:
        # The head's gradient needs each token's cotangent first: the chunks are computed again.
        value_N, _ = _forward(wanted, *arrays, False)
        return value_N, (arrays, None, () if student.perturbed else None)
    # Frozen head: a token's gradient only scales with its cotangent, so the same pass gives it.
    value_N, slope_ND = _forward(wanted, *arrays, True)
    return value_N, (None, slope_ND, ())


def _bwd(wanted: _Wanted, saved: Any, cotangent_N: Any):
    arrays, slope_ND, want_hidden = saved
    if arrays is None:
        return (slope_ND * cotangent_N[:, None]).astype(slope_ND.dtype), None, None, None
    student_ND, head_VD, teacher_NE, teacher_head_WE = arrays
    cast_VD = head_VD.astype(student_ND.dtype)
    teacher_head_WE = teacher_head_WE.astype(teacher_NE.dtype)

    def one(head_grad_VD: Any, rows: Any) -> Any:
        student_nD, teacher_nE, cotangent_n = rows
        logp_nV = _logp(wanted, teacher_nE, teacher_head_WE)
        logq_nV = _logp(wanted, student_nD, cast_VD)
        grad_nV = _logit_gradient(wanted, logp_nV, logq_nV) * cotangent_n[:, None]
        grad_nV = _to_rows(grad_nV, cast_VD)
        return through_head(grad_nV, student_nD, cast_VD, head_grad_VD, want_hidden is not None)

    start_VD = jnp.zeros(head_VD.shape, jnp.float32)
    rows = (student_ND, teacher_NE, cotangent_N)
    head_grad_VD, hidden_grad_ND = chunked(one, wanted.chunks, rows, start_VD)
    return hidden_grad_ND, head_grad_VD.astype(head_VD.dtype), None, None


_divergence.defvjp(_fwd, _bwd, symbolic_zeros=True)
