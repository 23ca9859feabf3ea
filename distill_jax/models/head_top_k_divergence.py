"""Divergence of a student from a teacher's stored top k, through the student's head in chunks."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import branch, top_k_tail_divergence
from distill_jax.models.head_loss import Term
from distill_jax.models.head_top_k import TopK, listed_and_tail


class _Settings(NamedTuple):
    kind: str
    beta: float
    temperature: float


def top_k_divergence(
    teacher: TopK,
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
        teacher: its most probable tokens, all below valid_vocab, at temperature T.
        weights_N, kind, beta, temperature: as for `head_divergence.divergence`.

    Raises:
        ConfigError: an impossible kind, beta or temperature.
    """
    chex.assert_rank(teacher, [2, 2, 1])
    chex.assert_equal_shape([teacher.ids_NK, teacher.logp_NK])
    if temperature <= 0.0:
        raise ConfigError(f"temperature={temperature}", wanted="above 0")
    settings = _Settings(branch(kind, float(beta)), float(beta), float(temperature))
    return Term(_measure, settings, weights_N, teacher)


def _measure(
    settings: _Settings,
    logits_NV: jax.Array,
    teacher: TopK,
    shared: tuple[()],
    vocab: int,
    gradient: bool,
) -> tuple[jax.Array, jax.Array | None]:
    def of(logits_NV: jax.Array) -> jax.Array:
        student = listed_and_tail(logits_NV / settings.temperature, teacher.ids_NK)
        return top_k_tail_divergence(*teacher[1:], *student, **settings._asdict())

    if not gradient:
        return of(logits_NV), None
    value_N, back = jax.vjp(of, logits_NV)
    return value_N, back(jnp.ones_like(value_N))[0]
