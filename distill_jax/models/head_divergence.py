"""Divergence of a student from a teacher at each token, through both LM heads in chunks."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch, divergence_of_logp
from distill_jax.models.head_chunks import chunk_logits
from distill_jax.models.head_loss import Term


class _Settings(NamedTuple):
    """`kind` is after the branch at β = 0 and 1."""

    kind: str
    beta: float
    temperature: float


def divergence(
    teacher_hidden_NE: jax.Array,
    teacher_head_WE: jax.Array,
    weights_N: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Term:
    """T²·divergence of teacher P and student Q over their shared vocabulary: a term of `head_loss`.

    Definitions in `kernels.divergence`; the value is in nats.

    Args:
        teacher_hidden_NE: float [N, E].
        teacher_head_WE: float [W, E]; W may differ from the student's V.
        weights_N: float [N], what the loss multiplies each token with: mask/count for a mean.
        kind: "forward" KL(P‖Q), "reverse" KL(Q‖P) or "jsd".
        beta: β of "jsd"; 0 means forward, 1 reverse.
        temperature: distillation temperature T > 0.

    Raises:
        ConfigError: an impossible kind, beta or temperature.
    """
    chex.assert_rank([teacher_hidden_NE, teacher_head_WE], 2)
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    branched = branch(kind, float(beta))
    return Term(
        _measure,
        _Settings(branched, float(beta) if branched == "jsd" else 0.0, float(temperature)),
        weights_N,
        teacher_hidden_NE,
        teacher_head_WE.astype(teacher_hidden_NE.dtype),
        columns=teacher_head_WE.shape[0],
    )


def _measure(
    settings: _Settings,
    student_NV: jax.Array,
    teacher_NE: jax.Array,
    teacher_head_WE: jax.Array,
    vocab: int,
    gradient: bool,
) -> tuple[jax.Array, jax.Array | None]:
    # The shared columns are cut from the logits: cutting a head would copy it.
    logp_NV = _logp(settings, chunk_logits(teacher_NE, teacher_head_WE)[:, :vocab])
    logq_NV = _logp(settings, student_NV[:, :vocab])
    value_N = divergence_of_logp(logp_NV, logq_NV, kind=settings.kind, beta=settings.beta)
    value_N = settings.temperature**2 * value_N
    if not gradient:
        return value_N, None
    slope_NV = _logit_gradient(settings, logp_NV, logq_NV)
    return value_N, jnp.pad(slope_NV, ((0, 0), (0, student_NV.shape[1] - vocab)))


def _logp(settings: _Settings, logits_NV: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits_NV / settings.temperature, axis=1)


def _logit_gradient(settings: _Settings, logp_NV: jax.Array, logq_NV: jax.Array) -> jax.Array:
    """∂(T²·divergence)/∂(student logits) over the shared vocabulary.

    Forward: T(q − p). Otherwise T·q⊙(g − Σ q·g), with g = log q − log p for reverse and
    (1−β)(log q − log m) for JSD.
    """
    q_NV = jnp.exp(logq_NV)
    if settings.kind == "forward":
        return settings.temperature * (q_NV - jnp.exp(logp_NV))
    if settings.kind == "reverse":
        slope_NV = logq_NV - logp_NV
    else:
        beta = settings.beta
        logm_NV = jnp.logaddexp(logp_NV + jnp.log(beta), logq_NV + jnp.log1p(-beta))
        slope_NV = (1.0 - beta) * (logq_NV - logm_NV)
    mean_N1 = jnp.sum(q_NV * slope_NV, axis=1, keepdims=True)
    return settings.temperature * q_NV * (slope_NV - mean_N1)
