"""Control `permuted`: the teacher's rewards go to other completions of the same prompt.

What is paid keeps its distribution and its level in each group, and says nothing of the completion
that gets it. Where the group's mean is the baseline, a completion gets each reward of its group
with equal probability, its own too: without its own it would be paid for the opposite, since its
own reward is in the mean. Where nothing is subtracted it never gets its own.
"""

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean
from distill_jax.kernels.token_advantage import compact, ordinals


def sources(key: jax.Array, groups: int, samples: int, *, own: bool) -> jax.Array:
    """Whose reward each sample gets, int32 [P, G], a permutation of each group.

    own: every permutation has equal probability; else only those of one cycle through the group.
    """
    order_PG = jnp.argsort(jax.random.uniform(key, (groups, samples)), axis=1)
    if own:
        return order_PG
    places_PG = jnp.argsort(order_PG, axis=1)
    return jnp.take_along_axis(order_PG, (places_PG + 1) % samples, axis=1)


def sequences(value_B: jax.Array, source_PG: jax.Array) -> jax.Array:
    """Each sequence's value from its source, [B]."""
    return jnp.take_along_axis(value_B.reshape(source_PG.shape), source_PG, axis=1).reshape(-1)


def tokens(reward_BR: jax.Array, mask_BR: jax.Array, source_PG: jax.Array) -> jax.Array:
    """The source's token rewards in order, [B, R]: cut at the row's own last token; a row of more
    tokens repeats the source's mean."""
    rows_B = (source_PG + jnp.arange(len(source_PG))[:, None] * source_PG.shape[1]).reshape(-1)
    value_BR, count_B = compact(reward_BR, mask_BR)
    mean_B = masked_mean(reward_BR, mask_BR, axis=1)
    place_BR = ordinals(mask_BR)
    moved_BR = jnp.take_along_axis(value_BR[rows_B], place_BR, axis=1)
    moved_BR = jnp.where(place_BR < count_B[rows_B][:, None], moved_BR, mean_B[rows_B][:, None])
    return jnp.where(mask_BR > 0, moved_BR, 0.0)
