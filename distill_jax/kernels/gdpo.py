"""Group advantages of several rewards, each normalised in its group before they are summed."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean
from distill_jax.kernels.grpo import group_advantage


def decoupled_advantage(
    terms: Sequence[tuple[float | jax.Array, jax.Array]],
    *,
    scale: str = "group",
    ddof: int = 1,
    eps: float = 1e-6,
    baseline: str = "mean",
) -> jax.Array:
    """Â = S/(std S + eps) over the batch, S = Σ_k w_k·A_k, with A_k the advantage of term k alone.

    The mean of S needs no subtraction: it is 0, as the sum of A_k in each group.

    A weighted sum of rewards divided by its spread loses the terms of little spread, and unequal
    combinations of rewards get equal advantages; normalised apart they do not.
    Source: arXiv 2601.05242.

    Args:
        terms: (weight, reward [P, G]) of each, at least one; NaN where a term does not apply: it
            gives 0 there and does not enter its group's mean and spread.
        scale, ddof, baseline: of each term's advantage, as in `group_advantage`.
        eps: added to the standard deviations.

    Returns:
        advantage, float32 [P, G]; 0 where all sums of the batch are equal.
    """
    total_PG = jnp.zeros_like(terms[0][1])
    for weight, reward_PG in terms:
        made_PG = _known_advantage(reward_PG, scale=scale, ddof=ddof, eps=eps, baseline=baseline)
        total_PG = total_PG + weight * made_PG
    square = jnp.sum(jnp.square(total_PG)) / max(total_PG.size - ddof, 1)
    return total_PG / (jnp.sqrt(square) + eps)


def _known_advantage(
    reward_PG: jax.Array, *, scale: str, ddof: int, eps: float, baseline: str
) -> jax.Array:
    """`group_advantage` over the samples whose reward is not NaN, 0 at the others."""
    chex.assert_rank(reward_PG, 2)
    reward_PG = jax.lax.stop_gradient(reward_PG).astype(jnp.float32)
    known_PG = ~jnp.isnan(reward_PG)
    weight_PG = known_PG.astype(jnp.float32)
    mean_P1 = masked_mean(reward_PG, weight_PG, axis=1)[:, None]
    # The mean in the place of what is unknown changes no sum of deviations.
    filled_PG = jnp.where(known_PG, reward_PG, mean_P1)
    raw_PG = group_advantage(filled_PG, scale="none")
    count_P1 = jnp.sum(weight_PG, axis=1, keepdims=True)
    if baseline == "leave_one_out":
        raw_PG *= count_P1 / jnp.maximum(count_P1 - 1.0, 1.0)
    deviation_PG = (filled_PG - mean_P1) * weight_PG
    if scale == "group":
        square_P1 = jnp.sum(jnp.square(deviation_PG), axis=1, keepdims=True)
        raw_PG /= jnp.sqrt(square_P1 / jnp.maximum(count_P1 - ddof, 1.0)) + eps
    elif scale == "batch":
        count = jnp.sum(weight_PG)
        mean = jnp.sum(jnp.where(known_PG, reward_PG, 0.0)) / jnp.maximum(count, 1.0)
        square = jnp.sum(jnp.square(jnp.where(known_PG, reward_PG - mean, 0.0)))
        raw_PG /= jnp.sqrt(square / jnp.maximum(count - ddof, 1.0)) + eps
    # Equal rewards give exactly 0, never the rounding noise of their mean divided by eps.
    most_P1 = jnp.max(jnp.where(known_PG, reward_PG, -jnp.inf), axis=1, keepdims=True)
    least_P1 = jnp.min(jnp.where(known_PG, reward_PG, jnp.inf), axis=1, keepdims=True)
    return jnp.where(known_PG & (most_P1 > least_P1), raw_PG, 0.0)
