"""Divergence of a student from a teacher's stored top k, through the student's head in chunks."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch, top_k_tail_divergence
from distill_jax.models.head_loss import Term


class _Settings(NamedTuple):
    kind: str
    beta: float
    temperature: float


def top_k_divergence(
    ids_NK: jax.Array,
    teacher_logp_NK: jax.Array,
    weights_N: jax.Array,
    *,
    kind: str = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Term:
    """T²·divergence over k listed tokens and one bucket for all others: a term of `head_loss`.

    A lower bound of `head_divergence.divergence`, which it equals where k is the whole vocabulary;
    see `kernels.divergence.top_k_tail_divergence`.

    Args:
        ids_NK: int32 [N, K], the teacher's most probable tokens, all below valid_vocab.
        teacher_logp_NK: float32 [N, K], the teacher's log-probabilities of them at temperature T
            over the whole vocabulary, as `head_top_k` gives them.
        weights_N, kind, beta, temperature: as for `head_divergence.divergence`.

    Raises:
        ConfigError: an impossible kind, beta or temperature.
    """
    chex.assert_rank([ids_NK, teacher_logp_NK], 2)
    chex.assert_equal_shape([ids_NK, teacher_logp_NK])
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    settings = _Settings(branch(kind, float(beta)), float(beta), float(temperature))
    return Term(_measure, settings, weights_N, (ids_NK, teacher_logp_NK))


def _measure(
    settings: _Settings,
    logits_NV: jax.Array,
    listed: tuple[jax.Array, jax.Array],
    shared: tuple[()],
    vocab: int,
    gradient: bool,
) -> tuple[jax.Array, jax.Array | None]:
    ids_NK, teacher_NK = listed

    def of(logits_NV: jax.Array) -> jax.Array:
        logq_NV = jax.nn.log_softmax(logits_NV / settings.temperature, axis=1)
        listed_NK = jnp.take_along_axis(logq_NV, ids_NK, axis=1, mode="clip")
        return top_k_tail_divergence(teacher_NK, listed_NK, **settings._asdict())

    if not gradient:
        return of(logits_NV), None
    value_N, back = jax.vjp(of, logits_NV)
    return value_N, back(jnp.ones_like(value_N))[0]
