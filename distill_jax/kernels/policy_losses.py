"""The GRPO family: one signature, one dictionary; an entry says ratio, clipping and average.

Every loss is a sum over tokens divided by a `Normaliser` of the whole batch. Computed on
microbatches with the whole batch's normaliser, losses, gradients and the metrics named `*_mean`
add up to the whole batch's exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.kernels import surrogates
from distill_jax.kernels.ppo import log_ratio
from distill_jax.kernels.surrogates import PolicyLossSettings as PolicyLossSettings

_DEFAULT = PolicyLossSettings()


class Normaliser(NamedTuple):
    """What the whole batch divides by, float32 scalars.

    Attributes:
        tokens: kept tokens.
        sequences: rows with at least one kept token.
    """

    tokens: jax.Array
    sequences: jax.Array


def normaliser(mask_BR: jax.Array) -> Normaliser:
    """Counts over the whole (global) batch; at least 1, so that an empty batch gives loss 0.

    Rows without a kept token (padding rows, masked truncated answers) do not count.
    """
    kept_BR = mask_BR > 0
    tokens = jnp.sum(kept_BR, dtype=jnp.float32)
    sequences = jnp.sum(jnp.any(kept_BR, axis=1), dtype=jnp.float32)
    return Normaliser(jnp.maximum(tokens, 1.0), jnp.maximum(sequences, 1.0))


# --- ratios: log ρ [B, R] from l = log π − log π_old ---------------------------------------------


def token_log_ratio(l_BR: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """log ρ_t = l_t."""
    return l_BR


def sequence_log_ratio(l_BR: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """log ρ = mean_t l_t for every token of the row, the gradient staying at its own token.

    For one advantage a row the gradient, averaged over the row, is GSPO's; for an advantage a
    token it is GSPO-token's (arXiv 2507.18071, eq. 14).
    """
    length_B1 = jnp.maximum(jnp.sum(mask_BR > 0, axis=1, keepdims=True), 1)
    mean_B1 = jnp.sum(l_BR, axis=1, keepdims=True) / length_B1
    own_BR = l_BR - jax.lax.stop_gradient(l_BR)
    return jnp.where(mask_BR > 0, jax.lax.stop_gradient(mean_B1) + own_BR, 0.0)


# --- averages: token losses [B, R] to a scalar ---------------------------------------------------


def mean_of_sequence_means(x_BR: jax.Array, mask_BR: jax.Array, norm: Normaliser, _: int):
    """(1/N) Σ_i (1/|y_i|) Σ_t x_it: every answer weighs the same."""
    length_B = jnp.maximum(jnp.sum(mask_BR > 0, axis=1), 1)
    return jnp.sum(jnp.sum(x_BR, axis=1) / length_B) / norm.sequences


def constant_length(x_BR: jax.Array, mask_BR: jax.Array, norm: Normaliser, max_length: int):
    """(1/(N·L_max)) Σ_it x_it: no dependence on length at all."""
    return jnp.sum(x_BR) / (norm.sequences * max_length)


def token_mean(x_BR: jax.Array, mask_BR: jax.Array, norm: Normaliser, _: int):
    """Σ_it x_it / Σ_i |y_i|: every token weighs the same."""
    return jnp.sum(x_BR) / norm.tokens


@dataclass(frozen=True)
class PolicyLoss:
    """One member of the family; call it as a loss.

    Attributes:
        ratio: log π − log π_old [B, R], mask -> log ρ [B, R].
        surrogate: one of `surrogates`.
        average: (token loss, mask, normaliser, max length) -> scalar.
        clip_low: ε_low unless the settings say otherwise.
        clip_high: ε_high likewise.
        reads: the settings that it reads.
    """

    ratio: Callable[[jax.Array, jax.Array], jax.Array]
    surrogate: Callable[..., surrogates.Bounded]
    average: Callable[[jax.Array, jax.Array, Normaliser, int], jax.Array]
    clip_low: float = 0.2
    clip_high: float = 0.2
    reads: tuple[str, ...] = ("clip_low", "clip_high", "delta")

    def __call__(
        self,
        logp_BR: jax.Array,
        old_logp_BR: jax.Array,
        advantage_BR: jax.Array,
        mask_BR: jax.Array,
        settings: PolicyLossSettings = _DEFAULT,
        *,
        norm: Normaliser | None = None,
        weight_BR: jax.Array | None = None,
        extra_BR: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Loss of a batch, or a microbatch's share of it.

        Args:
            logp_BR: log π in training, float [B, R]; carries the gradient.
            old_logp_BR: log π at the start of the update, same temperature, float [B, R].
            advantage_BR: A, float [B, R], or [B, 1] for one a sequence.
            mask_BR: 1 on trained tokens, [B, R].
            settings: clipping.
            norm: `normaliser` of the whole batch's mask; None = this batch is the whole.
            weight_BR: factor on each token's policy loss, e.g. `importance_weight` or
                `top_entropy_mask`; the averages still count every kept token, as in TRL.
            extra_BR: token costs averaged like the policy loss, e.g. β·k3 − c·entropy.

        Returns:
            (loss, metrics): float32 scalars. `clip_ratio/*` carry TRL's names: low counts tokens
            past their lower bound with A < 0, high those past the upper with A > 0, region both;
            `*_mean` are over tokens and add up over microbatches, `low_min` and `high_max` are over
            the rows, for a min and a max. `policy/approxkl_avg` is the mean of ½l².
        """
        chex.assert_equal_shape([logp_BR, old_logp_BR, mask_BR])
        norm = normaliser(mask_BR) if norm is None else norm
        low = self.clip_low if settings.clip_low is None else settings.clip_low
        high = self.clip_high if settings.clip_high is None else settings.clip_high
        advantage_BR = jax.lax.stop_gradient(jnp.broadcast_to(advantage_BR, mask_BR.shape))
        l_BR = log_ratio(logp_BR, jax.lax.stop_gradient(old_logp_BR), mask_BR)
        how = replace(settings, clip_low=low, clip_high=high)
        loss_BR, below_BR, above_BR = self.surrogate(
            self.ratio(l_BR, mask_BR), logp_BR, advantage_BR, mask_BR, how
        )
        if weight_BR is not None:
            loss_BR = jnp.where(mask_BR > 0, loss_BR * jax.lax.stop_gradient(weight_BR), 0.0)
        if extra_BR is not None:
            loss_BR += jnp.where(mask_BR > 0, extra_BR, 0.0)
        length = settings.max_completion_length or mask_BR.shape[1]
        loss = self.average(loss_BR, mask_BR, norm, length)
        metrics = _clip_metrics(below_BR, above_BR, advantage_BR, mask_BR, norm)
        metrics["policy/approxkl_avg"] = 0.5 * jnp.sum(jnp.square(l_BR)) / norm.tokens
        return loss, jax.lax.stop_gradient(metrics)


def _clip_metrics(below_BR, above_BR, advantage_BR, mask_BR, norm) -> dict[str, jax.Array]:
    kept_BR = mask_BR > 0
    low_BR = kept_BR & below_BR & (advantage_BR < 0)
    high_BR = kept_BR & above_BR & (advantage_BR > 0)
    length_B = jnp.sum(kept_BR, axis=1)
    row_low_B = jnp.where(length_B > 0, jnp.sum(low_BR, axis=1) / jnp.maximum(length_B, 1), jnp.inf)
    row_high_B = jnp.sum(high_BR, axis=1) / jnp.maximum(length_B, 1)
    return {
        "clip_ratio/low_mean": jnp.sum(low_BR) / norm.tokens,
        # 1, the greatest share, when no row counts: microbatches are joined by their minimum.
        "clip_ratio/low_min": jnp.minimum(jnp.min(row_low_B), 1.0),
        "clip_ratio/high_mean": jnp.sum(high_BR) / norm.tokens,
        "clip_ratio/high_max": jnp.max(row_high_B),
        "clip_ratio/region_mean": jnp.sum(low_BR | high_BR) / norm.tokens,
    }


LOSSES: dict[str, PolicyLoss] = {
    # arXiv 2402.03300
    "grpo": PolicyLoss(token_log_ratio, surrogates.clipped, mean_of_sequence_means),
    # arXiv 2503.20783; goes with group_advantage(scale="none")
    "dr_grpo": PolicyLoss(
        token_log_ratio,
        surrogates.clipped,
        constant_length,
        reads=("clip_low", "clip_high", "delta", "max_completion_length"),
    ),
    "bnpo": PolicyLoss(token_log_ratio, surrogates.clipped, token_mean),
    # arXiv 2503.14476: the clip is wider above, so that rare tokens can grow
    "dapo": PolicyLoss(token_log_ratio, surrogates.clipped, token_mean, clip_high=0.28),
    # arXiv 2506.13585: clip_high caps the weight itself
    "cispo": PolicyLoss(
        token_log_ratio,
        surrogates.capped_weight,
        token_mean,
        clip_high=5.0,
        reads=("clip_high",),
    ),
    # arXiv 2507.18071: a mean over tokens moves far less than a token, hence the small clip
    "gspo": PolicyLoss(
        sequence_log_ratio,
        surrogates.clipped,
        mean_of_sequence_means,
        clip_low=3e-4,
        clip_high=4e-4,
    ),
    # arXiv 2511.20347
    "sapo": PolicyLoss(
        token_log_ratio,
        surrogates.soft_gate,
        mean_of_sequence_means,
        reads=("temperature_pos", "temperature_neg"),
    ),
    # arXiv 2602.04879: ε is a distance of probabilities
    "dppo_tv": PolicyLoss(
        token_log_ratio,
        surrogates.trust_region,
        token_mean,
        reads=("clip_low", "clip_high"),
    ),
    # arXiv 2507.20673: ε is a distance of log-probabilities, wide, since the mean is robust
    "gmpo": PolicyLoss(
        token_log_ratio,
        surrogates.geometric_mean,
        mean_of_sequence_means,
        clip_low=0.4,
        clip_high=0.4,
        reads=("clip_low", "clip_high"),
    ),
}
