"""Divergences between a teacher P and a student Q at each token.

With distillation temperature T both are softmax(logits/T) and the value is multiplied by T², so
that gradients keep their size when T changes. For a whole batch at a real vocabulary use
`models.head.terms`, which calls these functions on chunks of tokens.
"""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

KINDS = ("forward", "reverse", "jsd")


def branch(kind: str, beta: float) -> str:
    """The kind after JSD's limits: β=0 means forward and β=1 reverse KL, as in TRL.

    JSD's raw formula is 0 at both limits.

    Raises:
        ConfigError: unknown kind, or β outside [0, 1].
    """
    if kind not in KINDS:
        raise ConfigError(f"divergence {kind!r}", wanted=f"one of {', '.join(KINDS)}")
    if kind != "jsd":
        return kind
    if not 0.0 <= beta <= 1.0:
        raise ConfigError(f"beta={beta}", wanted="0 to 1")
    return {0.0: "forward", 1.0: "reverse"}.get(beta, "jsd")


def divergence_of_logp(
    logp_XV: jax.Array, logq_XV: jax.Array, *, kind: str, beta: float = 0.5
) -> jax.Array:
    """Divergence of two normalised log-distributions over the last axis: [...], nats.

    "forward": KL(P‖Q) = Σ p(log p − log q). "reverse": KL(Q‖P).
    "jsd": β·KL(P‖M) + (1−β)·KL(Q‖M) with M = βP + (1−β)Q (arXiv 2306.13649).
    """
    kind = branch(kind, beta)
    p_XV, q_XV = jnp.exp(logp_XV), jnp.exp(logq_XV)
    if kind == "forward":
        return jnp.sum(_x_times(p_XV, logp_XV - logq_XV), axis=-1)
    if kind == "reverse":
        return jnp.sum(_x_times(q_XV, logq_XV - logp_XV), axis=-1)
    logm_XV = _log_mixture(logp_XV, logq_XV, beta)
    terms_XV = beta * _x_times(p_XV, logp_XV - logm_XV)
    terms_XV += (1.0 - beta) * _x_times(q_XV, logq_XV - logm_XV)
    return jnp.sum(terms_XV, axis=-1)


def _x_times(x: jax.Array, y: jax.Array) -> jax.Array:
    # 0·log 0 = 0. Selected after the product, so that XLA:CPU sums it in one pass.
    return jnp.where(x > 0, x * y, 0.0)


def _log_mixture(logp_XV: jax.Array, logq_XV: jax.Array, beta: float) -> jax.Array:
    return jnp.logaddexp(logp_XV + jnp.log(beta), logq_XV + jnp.log1p(-beta))


def divergence(
    teacher_XV: jax.Array,
    student_XV: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> jax.Array:
    """T²·divergence of P = softmax(teacher/T) and Q = softmax(student/T).

    Args:
        teacher_XV, student_XV: logits, float [..., V].
        kind: "forward", "reverse" or "jsd", see `divergence_of_logp`.
        beta: β of "jsd", 0 to 1.
        temperature: distillation temperature T > 0.

    Returns:
        float32 [...], nats.

    Raises:
        ConfigError: unknown kind, or β outside [0, 1].
    """
    logp_XV, logq_XV = _log_softmax(teacher_XV, student_XV, temperature)
    return temperature**2 * divergence_of_logp(logp_XV, logq_XV, kind=kind, beta=beta)


def divergence_and_slope(
    teacher_XV: jax.Array,
    student_XV: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """`divergence` and its gradient in the student's logits, [...] and [..., V].

    The gradient of T²·KL(P‖Q) is T·(q − p). Otherwise it is T·q⊙(g − Σ q·g), with
    g = log q − log p for reverse KL and g = (1−β)(log q − log m) for JSD.
    """
    logp_XV, logq_XV = _log_softmax(teacher_XV, student_XV, temperature)
    kind = branch(kind, beta)
    q_XV = jnp.exp(logq_XV)
    if kind == "jsd":
        # Two sums: one sum of both parts, as in `divergence_of_logp`, holds two more arrays [V].
        logm_XV = _log_mixture(logp_XV, logq_XV, beta)
        g_XV = (1.0 - beta) * (logq_XV - logm_XV)
        mean_X = jnp.sum(_x_times(q_XV, g_XV), axis=-1)
        kl_X = jnp.sum(_x_times(jnp.exp(logp_XV), logp_XV - logm_XV), axis=-1)
        value_X = mean_X + beta * kl_X
        slope_XV = q_XV * (g_XV - mean_X[..., None])
    else:
        value_X = divergence_of_logp(logp_XV, logq_XV, kind=kind)
        if kind == "forward":
            slope_XV = q_XV - jnp.exp(logp_XV)
        else:
            slope_XV = q_XV * (logq_XV - logp_XV - value_X[..., None])
    return temperature**2 * value_X, temperature * slope_XV


def _log_softmax(
    teacher_XV: jax.Array, student_XV: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    chex.assert_equal_shape([teacher_XV, student_XV])
    chex.assert_type([teacher_XV, student_XV], float)
    logp_XV = jax.nn.log_softmax(teacher_XV.astype(jnp.float32) / temperature, axis=-1)
    logq_XV = jax.nn.log_softmax(student_XV.astype(jnp.float32) / temperature, axis=-1)
    return logp_XV, logq_XV


def top_k_tail_divergence(
    teacher_logp_XK: jax.Array,
    teacher_log_tail_X: jax.Array,
    student_logp_XK: jax.Array,
    student_log_tail_X: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> jax.Array:
    """T²·divergence over k listed tokens and one bucket for all others.

    Nothing is renormalised, and by the log-sum inequality the value never exceeds the full
    divergence. Tails are logarithms: 1 − Σ in float32 loses a tail below 1e-7, which dominates
    the reverse KL where the teacher is certain. Source: arXiv 2503.16870.

    Args:
        teacher_logp_XK: log-probabilities, at temperature T and over the full vocabulary, of the
            listed tokens (the teacher's top k), float [..., K].
        teacher_log_tail_X: log of the probability of all other tokens, float [...]; a large
            negative finite number if there are none.
        student_logp_XK, student_log_tail_X: the student's at the same tokens.
        kind, beta: as for `divergence`.
        temperature: T, only for the factor T².

    Returns:
        float32 [...], nats.
    """
    chex.assert_equal_shape([teacher_logp_XK, student_logp_XK])
    teacher_XK = _with_tail(teacher_logp_XK, teacher_log_tail_X)
    student_XK = _with_tail(student_logp_XK, student_log_tail_X)
    return temperature**2 * divergence_of_logp(teacher_XK, student_XK, kind=kind, beta=beta)


def _with_tail(logp_XK: jax.Array, log_tail_X: jax.Array) -> jax.Array:
    return jnp.concatenate([logp_XK, log_tail_X[..., None]], axis=-1).astype(jnp.float32)


def cosine_similarity(a_XD: jax.Array, b_XD: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """a·b/max(|a||b|, eps) over the last axis, float32 [...], at most 1; 0 for a zero vector."""
    chex.assert_equal_shape([a_XD, b_XD])
    a_XD, b_XD = a_XD.astype(jnp.float32), b_XD.astype(jnp.float32)
    lengths_X = jnp.sqrt(jnp.sum(a_XD * a_XD, axis=-1)) * jnp.sqrt(jnp.sum(b_XD * b_XD, axis=-1))
    return jnp.minimum(jnp.sum(a_XD * b_XD, axis=-1) / jnp.maximum(lengths_X, eps), 1.0)
