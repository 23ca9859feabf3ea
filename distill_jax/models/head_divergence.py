"""Divergence of a student from a teacher at each token, through both LM heads in chunks."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch
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
    value_N, slope_NV = _value_and_slope(settings, logp_NV, logq_NV)
    value_N = settings.temperature**2 * value_N
    if not gradient:
        return value_N, None
    missing = student_NV.shape[1] - vocab
    return value_N, jnp.pad(settings.temperature * slope_NV, ((0, 0), (0, missing)))


def _logp(settings: _Settings, logits_NV: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits_NV / settings.temperature, axis=1)


def _value_and_slope(
    settings: _Settings, logp_NV: jax.Array, logq_NV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The divergence [N] and T·∂divergence/∂(student logits) [N, V].

    The slope of forward KL is q − p; otherwise q⊙(g − Σ q·g), with g = log q − log p for reverse
    and (1−β)(log q − log m) for JSD.
    """
    q_NV = jnp.exp(logq_NV)
    if settings.kind == "forward":
        p_NV = jnp.exp(logp_NV)
        return _mean(p_NV, logp_NV - logq_NV), q_NV - p_NV
    if settings.kind == "reverse":
        g_NV = logq_NV - logp_NV
        value_N = mean_N = _mean(q_NV, g_NV)
    else:
        beta = settings.beta
        logm_NV = jnp.logaddexp(logp_NV + jnp.log(beta), logq_NV + jnp.log1p(-beta))
        g_NV = (1.0 - beta) * (logq_NV - logm_NV)
        mean_N = _mean(q_NV, g_NV)
        value_N = mean_N + beta * _mean(jnp.exp(logp_NV), logp_NV - logm_NV)
    return value_N, q_NV * (g_NV - mean_N[:, None])


def _mean(p_NV: jax.Array, x_NV: jax.Array) -> jax.Array:
    # Σ p·x with 0·∞ = 0. Chosen after the product, so that XLA:CPU sums it in one pass.
    return jnp.sum(jnp.where(p_NV > 0, p_NV * x_NV, 0.0), axis=1)
