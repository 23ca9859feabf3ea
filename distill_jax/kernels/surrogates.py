"""Loss of each token from ratio and advantage, one function for each way to bound the update.

Each takes (l [B, R], log π [B, R], A [B, R], mask [B, R], settings), l = log ρ and 0 where the mask
is 0, and returns (loss [B, R], below [B, R], above [B, R]). Losses are 0 where the mask is 0 and
are not averaged; A has no gradient. below, above: bool, whether the token is past its lower or
upper bound. The settings' clips must be numbers: `PolicyLoss` puts the variant's in place of None.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.settings import setting
from distill_jax.kernels.ppo import clipped_surrogate

Bounded = tuple[jax.Array, jax.Array, jax.Array]
# Largest weight of a token in dppo_tv, as its authors have it.
_MOST = 20.0


@dataclass(frozen=True)
class PolicyLossSettings:
    """Bounds of the policy's update, None: the variant's own default; the divisor of dr_grpo.

    A variant reads what `PolicyLoss.reads` names.
    """

    clip_low: float | None = setting(
        None,
        "ε_low of the ratio (dppo_tv: of the probability, gmpo: of log ρ); None: the variant's.",
        low=0.0,
    )
    clip_high: float | None = setting(
        None,
        "ε_high likewise (cispo: cap of the ratio); None: the variant's.",
        low=0.0,
    )
    delta: float | None = setting(
        None,
        "Upper bound δ of the ratio also where A < 0, above 1 + ε_high (INTELLECT-2); None: off.",
        above=1.0,
    )
    temperature_pos: float = setting(1.0, "τ of sapo where A > 0.", above=0.0)
    temperature_neg: float = setting(
        1.05, "τ of sapo where A ≤ 0: higher, so that the gradient fades faster.", above=0.0
    )
    max_completion_length: int = setting(
        0, "Tokens that dr_grpo divides by; 0: sampling.max_new_tokens.", low=0
    )


def clipped(l_BR, logp_BR, advantage_BR, mask_BR, how: Any) -> Bounded:
    """−min(min(ρ, δ)A, clip(ρ, 1−ε_low, 1+ε_high)A), without δ where it is None.

    δ bounds the loss where A < 0, which ρ alone does not (arXiv 2505.07291).
    """
    lower, upper, ratio_BR = 1.0 - how.clip_low, 1.0 + how.clip_high, jnp.exp(l_BR)
    bounded_BR = ratio_BR if how.delta is None else jnp.minimum(ratio_BR, how.delta)
    loss_BR = clipped_surrogate(bounded_BR, advantage_BR, mask_BR, how.clip_low, how.clip_high)
    return loss_BR, ratio_BR < lower, ratio_BR > upper


def capped_weight(l_BR, logp_BR, advantage_BR, mask_BR, how: Any) -> Bounded:
    """−sg(min(ρ, ε_high))·A·log π: no token's gradient vanishes (arXiv 2506.13585)."""
    ratio_BR = jnp.exp(l_BR)
    weight_BR = jnp.minimum(ratio_BR, how.clip_high)
    loss_BR = _score_function(weight_BR, logp_BR, advantage_BR, mask_BR)
    return loss_BR, ratio_BR < 0.0, ratio_BR > how.clip_high


def soft_gate(l_BR, logp_BR, advantage_BR, mask_BR, how: Any) -> Bounded:
    """−(4/τ)·σ(τ(ρ−1))·A with τ by the sign of A (SAPO, arXiv 2511.20347).

    The gradient's weight 4ρ·σ(1−σ) is 1 at ρ = 1 and fades on both sides: there is no bound.
    """
    advantage_BR = _kept(advantage_BR, mask_BR)
    tau_BR = jnp.where(advantage_BR > 0, how.temperature_pos, how.temperature_neg)
    gate_BR = 4.0 / tau_BR * jax.nn.sigmoid(tau_BR * (jnp.exp(l_BR) - 1.0))
    never_BR = jnp.zeros(l_BR.shape, bool)
    return -jnp.where(mask_BR > 0, gate_BR * advantage_BR, 0.0), never_BR, never_BR


def trust_region(l_BR, logp_BR, advantage_BR, mask_BR, how: Any) -> Bounded:
    """−sg(min(ρ, 20))·A·log π, 0 where the update has moved π(token) too far (arXiv 2602.04879).

    Too far is π − π_old > ε_high where A > 0 and π − π_old < −ε_low where A < 0: |π − π_old| is the
    total variation between both, with all other tokens taken as one. A rare token may move by a
    large ratio, a likely one by a small ratio alone.
    """
    advantage_BR = _kept(advantage_BR, mask_BR)
    logp_BR = _kept(logp_BR, mask_BR)
    moved_BR = jnp.exp(logp_BR) - jnp.exp(logp_BR - l_BR)
    below_BR, above_BR = moved_BR < -how.clip_low, moved_BR > how.clip_high
    held_BR = (below_BR & (advantage_BR < 0)) | (above_BR & (advantage_BR > 0))
    weight_BR = jnp.where(held_BR, 0.0, jnp.minimum(jnp.exp(l_BR), _MOST))
    return _score_function(weight_BR, logp_BR, advantage_BR, mask_BR), below_BR, above_BR


def geometric_mean(l_BR, logp_BR, advantage_BR, mask_BR, how: Any) -> Bounded:
    """−A·exp(mean_t l_t), l clipped on the side that A pushes it to (GMPO, 2507.20673).

    Where A > 0, l ≤ ε_high; where A ≤ 0, l ≥ −ε_low. As in `sequence_log_ratio`, the gradient of
    the mean stays at its own token: averaged over the row, it is that of −A·exp(mean_t l_t) for
    one advantage a row, and an advantage a token pushes its own token.
    """
    kept_BR = mask_BR > 0
    advantage_BR = _kept(advantage_BR, mask_BR)
    below_BR, above_BR = l_BR < -how.clip_low, l_BR > how.clip_high
    at_most_BR, at_least_BR = jnp.minimum(l_BR, how.clip_high), jnp.maximum(l_BR, -how.clip_low)
    l_BR = jnp.where(advantage_BR > 0, at_most_BR, at_least_BR)
    length_B1 = jnp.maximum(jnp.sum(kept_BR, axis=1, keepdims=True), 1)
    mean_B1 = jax.lax.stop_gradient(jnp.sum(l_BR, axis=1, keepdims=True) / length_B1)
    own_BR = jnp.exp(mean_B1 + l_BR - jax.lax.stop_gradient(l_BR))
    return -jnp.where(kept_BR, own_BR * advantage_BR, 0.0), below_BR, above_BR


def _kept(x_BR: jax.Array, mask_BR: jax.Array) -> jax.Array:
    return jnp.where(mask_BR > 0, x_BR, 0.0)


def _score_function(weight_BR, logp_BR, advantage_BR, mask_BR) -> jax.Array:
    """−sg(w·A)·log π."""
    weight_BR = jax.lax.stop_gradient(weight_BR * _kept(advantage_BR, mask_BR))
    return -weight_BR * _kept(logp_BR, mask_BR)
