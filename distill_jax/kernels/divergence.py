"""Divergences between a teacher P and a student Q at each token, from logits.

With distillation temperature T both are softmax(logits/T) and the value is multiplied by T², so
that gradients keep their size when T changes. For a whole batch at a real vocabulary use
`models.head_divergence`, which never holds the vocabulary axis.
"""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

KINDS = ("forward", "reverse", "jsd")


def branch(kind: str, beta: float) -> str:
    """The kind that is meant: JSD's raw formula is 0 at β=0 and 1, so these mean forward, reverse.

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
    """Divergence of two normalised log-distributions over the last axis: [...], nats."""
    kind = branch(kind, beta)
    p_XV, q_XV = jnp.exp(logp_XV), jnp.exp(logq_XV)
    if kind == "forward":
        return jnp.sum(_x_times(p_XV, logp_XV - logq_XV), axis=-1)
    if kind == "reverse":
        return jnp.sum(_x_times(q_XV, logq_XV - logp_XV), axis=-1)
    logm_XV = jnp.logaddexp(logp_XV + jnp.log(beta), logq_XV + jnp.log1p(-beta))
    terms_XV = beta * _x_times(p_XV, logp_XV - logm_XV)
    terms_XV += (1.0 - beta) * _x_times(q_XV, logq_XV - logm_XV)
    return jnp.sum(terms_XV, axis=-1)


def _x_times(x: jax.Array, y: jax.Array) -> jax.Array:
    # 0·log 0 = 0, also in the gradient: y is replaced before the product.
    return x * jnp.where(x > 0, y, 0.0)


def _from_logits(
    teacher_XV: jax.Array, student_XV: jax.Array, temperature: float, kind: str, beta: float
) -> jax.Array:
    chex.assert_equal_shape([teacher_XV, student_XV])
    chex.assert_type([teacher_XV, student_XV], float)
    logp_XV = jax.nn.log_softmax(teacher_XV.astype(jnp.float32) / temperature, axis=-1)
    logq_XV = jax.nn.log_softmax(student_XV.astype(jnp.float32) / temperature, axis=-1)
    value_X = divergence_of_logp(logp_XV, logq_XV, kind=kind, beta=beta)
    return temperature**2 * value_X


def forward_kl(
    teacher_XV: jax.Array, student_XV: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """T²·KL(P‖Q) = T²·Σ p(log p − log q); gradient in the student's logits T·(q − p).

    Args:
        teacher_XV: teacher's logits, float [..., V].
        student_XV: student's logits, float [..., V].
        temperature: distillation temperature T > 0.

    Returns:
        float32 [...], nats.
    """
    return _from_logits(teacher_XV, student_XV, temperature, "forward", 0.0)


def reverse_kl(
    teacher_XV: jax.Array, student_XV: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """T²·KL(Q‖P); gradient in the student's logits T·q⊙(log q − log p − KL). Args as forward_kl."""
    return _from_logits(teacher_XV, student_XV, temperature, "reverse", 0.0)


def jsd_beta(
    teacher_XV: jax.Array, student_XV: jax.Array, *, beta: float = 0.5, temperature: float = 1.0
) -> jax.Array:
    """T²·(β·KL(P‖M) + (1−β)·KL(Q‖M)) with M = βP + (1−β)Q.

    β=0 means forward and β=1 reverse KL, by branch as in TRL. Source: arXiv 2306.13649.
    Args as forward_kl; beta in [0, 1].
    """
    return _from_logits(teacher_XV, student_XV, temperature, "jsd", beta)


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
    """Divergence over k listed tokens and one bucket for all others.

    Nothing is renormalised, and by the log-sum inequality the value never exceeds the full
    divergence. Tails are given as logarithms: as 1 − Σ, one below 1e-7 would be lost, and with it
    what a reverse KL is made of where the teacher is certain. Source: arXiv 2503.16870.

    Args:
        teacher_logp_XK: log-probabilities, at temperature T and over the full vocabulary, of the
            listed tokens (the teacher's top k), float [..., K].
        teacher_log_tail_X: log of the mass that is on no listed token, float [...]; where there
            is none, very low and finite.
        student_logp_XK: the student's at the same tokens, float [..., K].
        student_log_tail_X: the student's, float [...].
        kind: "forward", "reverse" or "jsd".
        beta: β of "jsd".
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


def cosine_distance(a_XD: jax.Array, b_XD: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """1 − a·b/(|a||b|) over the last axis, float32 [...]; 1 when either vector is zero."""
    chex.assert_equal_shape([a_XD, b_XD])
    a_XD, b_XD = a_XD.astype(jnp.float32), b_XD.astype(jnp.float32)
    square = jnp.sum(a_XD * a_XD, axis=-1) * jnp.sum(b_XD * b_XD, axis=-1)
    return 1.0 - jnp.sum(a_XD * b_XD, axis=-1) * jax.lax.rsqrt(jnp.maximum(square, eps**2))
