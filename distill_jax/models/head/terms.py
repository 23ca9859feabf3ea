"""Terms of `loss.head_loss`: cross-entropy, and divergences from a teacher.

A divergence comes either from the teacher's hidden states and head, or from its stored top k.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels import divergence as kernels
from distill_jax.models.head.chunks import chunk_logits
from distill_jax.models.head.listed import TopK
from distill_jax.models.head.loss import Term
from distill_jax.models.head.top_k import listed_and_tail


class _Settings(NamedTuple):
    """`kind` is the branch taken at β = 0 and 1; β is 0 unless it is "jsd"."""

    kind: str
    beta: float
    temperature: float


def _settings(kind: str, beta: float, temperature: float) -> _Settings:
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    branched = kernels.branch(kind, float(beta))
    return _Settings(branched, float(beta) if branched == "jsd" else 0.0, float(temperature))


def cross_entropy(targets_N: jax.Array, weights_N: jax.Array) -> Term:
    """−log softmax(logits)[target] of each token, nats; targets are int, below valid_vocab."""
    return Term(_cross_entropy, None, weights_N, targets_N)


def divergence(
    teacher_hidden_NE: jax.Array,
    teacher_head_WE: jax.Array,
    weights_N: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
    targets_N: jax.Array | None = None,
) -> Term:
    """T²·divergence of teacher P and student Q over their shared vocabulary, nats.

    Definitions in `kernels.divergence`.

    Args:
        teacher_hidden_NE, teacher_head_WE: float; W may differ from the student's V.
        weights_N: float [N], factor of each token in the loss: mask/count for a mean.
        kind: "forward" KL(P‖Q), "reverse" KL(Q‖P) or "jsd".
        beta: β of "jsd"; 0 means forward, 1 reverse.
        temperature: distillation temperature T > 0.
        targets_N: int, below valid_vocab; with them the term's values have a second column, the
            teacher's log-probability of the target at temperature 1.

    Raises:
        ConfigError: an impossible kind, beta or temperature.
    """
    chex.assert_rank([teacher_hidden_NE, teacher_head_WE], 2)
    return Term(
        _divergence if targets_N is None else _divergence_and_logp,
        _settings(kind, beta, temperature),
        weights_N,
        teacher_hidden_NE if targets_N is None else (teacher_hidden_NE, targets_N),
        teacher_head_WE.astype(teacher_hidden_NE.dtype),
        columns=teacher_head_WE.shape[0],
    )


def top_k_divergence(
    teacher: TopK,
    weights_N: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Term:
    """T²·divergence over k listed tokens and one bucket for all others, nats.

    A lower bound of `divergence`, equal to it if k is the whole vocabulary; see
    `kernels.divergence.top_k_tail_divergence`.

    Args:
        teacher: its most probable tokens, all below valid_vocab, at temperature T; leading axis N.
        weights_N, kind, beta, temperature: as for `divergence`.

    Raises:
        ConfigError: an impossible kind, beta or temperature.
    """
    chex.assert_rank(teacher, [2, 2, 1])
    chex.assert_equal_shape([teacher.ids_XK, teacher.logp_XK])
    return Term(_top_k_divergence, _settings(kind, beta, temperature), weights_N, teacher)


# --- `Term.measure` of each ----------------------------------------------------------------------


def _cross_entropy(
    settings: None, logits_NV: jax.Array, targets_N: jax.Array, shared: Any, vocab: int, slope: bool
) -> tuple[jax.Array, jax.Array | None]:
    logp_NV = jax.nn.log_softmax(logits_NV, axis=1)
    value_N = -jnp.take_along_axis(logp_NV, targets_N[:, None], axis=1, mode="clip")[:, 0]
    if not slope:
        return value_N, None
    hit_NV = jnp.arange(logits_NV.shape[1]) == targets_N[:, None]
    return value_N, jnp.exp(logp_NV) - hit_NV


def _divergence(
    settings: _Settings,
    student_NV: jax.Array,
    teacher_NE: jax.Array,
    teacher_head_WE: jax.Array,
    vocab: int,
    slope: bool,
) -> tuple[jax.Array, jax.Array | None]:
    # The shared columns are cut from the logits: cutting a head would copy it.
    both = chunk_logits(teacher_NE, teacher_head_WE)[:, :vocab], student_NV[:, :vocab]
    if not slope:
        return kernels.divergence(*both, **settings._asdict()), None
    value_N, slope_NV = kernels.divergence_and_slope(*both, **settings._asdict())
    missing = student_NV.shape[1] - vocab
    return value_N, jnp.pad(slope_NV, ((0, 0), (0, missing)))


def _divergence_and_logp(
    settings: _Settings,
    student_NV: jax.Array,
    rows: tuple[jax.Array, jax.Array],
    teacher_head_WE: jax.Array,
    vocab: int,
    slope: bool,
) -> tuple[jax.Array, jax.Array | None]:
    teacher_NE, targets_N = rows
    value_N, slope_NV = _divergence(settings, student_NV, teacher_NE, teacher_head_WE, vocab, slope)
    # The compiler computes equal logits once.
    teacher_NV = chunk_logits(teacher_NE, teacher_head_WE)[:, :vocab]
    nll_N, _ = _cross_entropy(None, teacher_NV, targets_N, (), vocab, False)
    return jnp.stack([value_N, -nll_N], axis=1), slope_NV


def _top_k_divergence(
    settings: _Settings, logits_NV: jax.Array, teacher: TopK, shared: Any, vocab: int, slope: bool
) -> tuple[jax.Array, jax.Array | None]:
    def value(logits_NV: jax.Array) -> jax.Array:
        student = listed_and_tail(logits_NV / settings.temperature, teacher.ids_XK)
        return kernels.top_k_tail_divergence(*teacher[1:], *student, **settings._asdict())

    if not slope:
        return value(logits_NV), None
    value_N, back = jax.vjp(value, logits_NV)
    return value_N, back(jnp.ones_like(value_N))[0]
