"""Token credit: the teacher's rewards as an advantage of each token (`rl.rewards.credit=token`).

    A_t = W·Â + w_i·clip(D_t/scale),   D_t = Σ_{k≥t} γ^{k−t}·d_k − b_t,
    d_t = clip(α·(log π_T − s·log π_S))

Â is what the algorithm makes of all other terms, with their weights' sum W where it divides by a
standard deviation. The two parts are normalised apart: Â by its group, D by a running scale over
tokens. So the dense part stays within ±w_i·clip on each token, next to a verdict's ±W or so.

π_S is the sampler's: the distribution that the token was drawn from, at the sampling temperature.
It is recorded in any case; the trainer's own log-probabilities differ from it by rounding, or by
truncation of the sampler (top_p, top_k), and would cost another forward pass.
"""

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean
from distill_jax.kernels.token_advantage import token_advantage
from distill_jax.rewards.settings import RewardSettings

Figures = dict[str, jax.Array]


def unscaled(
    settings: RewardSettings, reward_BR: jax.Array, mask_BR: jax.Array, samples: int
) -> tuple[jax.Array, Figures]:
    """(D_t of each token, figures of d_t) from α·(log π_T − s·log π_S), f32 [B, R]."""
    limit = settings.token_clip or jnp.inf
    cut_BR = jnp.clip(reward_BR, -limit, limit)
    made_BR = token_advantage(
        cut_BR, mask_BR, samples, discount=settings.discount, baseline=settings.baseline_of_tokens
    )
    mean = masked_mean(cut_BR, mask_BR)
    figures = {
        "rewards/dense/mean": mean,
        "rewards/dense/std": jnp.sqrt(masked_mean(jnp.square(cut_BR - mean), mask_BR)),
        "rewards/dense/clipped": masked_mean(
            (jnp.abs(reward_BR) > limit).astype(jnp.float32), mask_BR
        ),
    }
    return made_BR, figures


def scaled_figures(
    settings: RewardSettings, weight: float | jax.Array, scaled_BR: jax.Array, mask_BR: jax.Array
) -> Figures:
    """Of D_t after scaling and clipping: mean size of w_i·D_t, and the share at the clip."""
    figures = {"rewards/dense/advantage": weight * masked_mean(jnp.abs(scaled_BR), mask_BR)}
    if settings.normaliser != "none" and settings.clip:
        met_BR = (jnp.abs(scaled_BR) >= settings.clip).astype(jnp.float32)
        figures["rewards/dense/advantage_clipped"] = masked_mean(met_BR, mask_BR)
    return figures


def added(
    sequence_BR: jax.Array, token_BR: jax.Array, rewards: RewardSettings, *, divided: bool
) -> jax.Array:
    """A_t from a group method's advantage and the weighted dense part, f32 [B, R].

    divided: the former was divided by a standard deviation, which takes the weights away.
    """
    return sequence_BR * (rewards.sequence_weight if divided else 1.0) + token_BR
