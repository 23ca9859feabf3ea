"""Rewards joined: one number a token for PPO, one number a sequence for the group methods."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.core.masked import masked_sum
from distill_jax.core.settings import setting
from distill_jax.kernels.intrinsic import intrinsic_reward
from distill_jax.rewards import normalise
from distill_jax.rewards.teacher import TeacherScores


@dataclass(frozen=True)
class RewardSettings:
    """What is rewarded, and how much."""

    correctness_weight: float = setting(1.0, "Weight of the verified answer.", low=0.0)
    intrinsic_weight: float = setting(0.3, "Weight of the teacher's intrinsic reward.", low=0.0)
    right: float = setting(1.0, "Reward of a right answer.")
    wrong: float = setting(0.0, "Reward of a wrong or missing answer.")
    alpha: float = setting(1.0, "Soft temperature α of the teacher's policy.", above=0.0)
    gamma: float = setting(
        1.0, "Discount of the inverse soft Bellman operator.", above=0.0, high=1.0
    )
    form: str = setting(
        "canonical",
        "canonical: r = α·log π_T(a|s), independent of how logits are shifted; "
        "raw: r = Q − γ·V(next).",
        choices=("canonical", "raw"),
    )
    sequence: str = setting(
        "mean",
        "How the tokens' intrinsic rewards make a sequence's: their mean (length-normalised) or "
        "their sum. PPO gives each token its share of it.",
        choices=("mean", "sum"),
    )
    scale: bool = setting(True, "Divide the intrinsic reward by its running root mean square.")
    momentum: float = setting(0.99, "Momentum of that running scale.", low=0.0, high=0.9999)
    clip: float = setting(5.0, "Scaled intrinsic rewards are cut to ± this; 0 is off.", low=0.0)
    overlong_buffer: int = setting(
        0, "Soft overlong punishment over this many last tokens (DAPO); 0 is off.", low=0
    )

    def __post_init__(self) -> None:
        if self.right <= self.wrong:
            raise ConfigError(f"right={self.right} with wrong={self.wrong}", wanted="right > wrong")
        if not (self.correctness_weight or self.intrinsic_weight):
            raise ConfigError(
                "correctness_weight=0 with intrinsic_weight=0",
                wanted="one above 0: there would be nothing to learn from",
            )
        if self.form == "canonical" and self.gamma != 1.0:
            raise ConfigError(
                f"gamma={self.gamma} with form=canonical",
                wanted="gamma=1: in canonical form V is 0 and γ would do nothing",
                fix="set form=raw, or gamma=1",
            )


def intrinsic_BR(
    settings: RewardSettings, teacher: TeacherScores, mask_BR: jax.Array, ended_B: jax.Array
) -> jax.Array:
    """The teacher's reward of each response token, unscaled; 0 under the mask's zeros.

    A truncated answer is not terminal: in raw form its last token is bootstrapped with the value
    of the state after it; after EOS the value is 0.
    """
    return intrinsic_reward(
        teacher.q_BR,
        teacher.value_BR,
        mask_BR,
        gamma=settings.gamma,
        bootstrap_B=jnp.where(ended_B, 0.0, teacher.end_value_B),
        canonical=settings.form == "canonical",
    )


def sequence_B(settings: RewardSettings, intrinsic: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """A sequence's intrinsic reward: mean or sum over its tokens."""
    total = masked_sum(intrinsic, mask_BR, axis=1)
    if settings.sequence == "sum":
        return total
    return total / jnp.maximum(jnp.sum(mask_BR, axis=1), 1.0)


def share_BR(settings: RewardSettings, intrinsic: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """Each token's share of a sequence's intrinsic reward: row sums are `sequence_B`.

    A sum of log-probabilities falls with every token: it pays for ending early, and after some
    hundred tokens no verified answer outweighs it.
    """
    if settings.sequence == "sum":
        return intrinsic
    return intrinsic / jnp.maximum(jnp.sum(mask_BR, axis=1, keepdims=True), 1.0)


def scaled(
    settings: RewardSettings, scale: normalise.Scale, x: jax.Array, mask: jax.Array
) -> tuple[jax.Array, normalise.Scale]:
    """The reward divided by its running scale (this batch included) and clipped."""
    if not settings.scale:
        return x, scale
    scale = normalise.update_scale(scale, x, mask, settings.momentum)
    x = x / normalise.rms(scale)
    return (jnp.clip(x, -settings.clip, settings.clip) if settings.clip else x), scale


def weighted_sum(terms: dict[str, tuple[float, jax.Array]]) -> jax.Array:
    """Σ weight·term over the terms that apply; NaN in a term means not applicable there."""
    total = jnp.zeros(())
    for weight, value in terms.values():
        total = total + jnp.where(jnp.isnan(value), 0.0, weight * value)
    return total


def on_last_token(value_B: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """[B,R] with each row's value on its last response token, 0 elsewhere (NaN counts as 0)."""
    step = jnp.arange(mask_BR.shape[1])[None, :]
    last = jnp.sum(mask_BR, axis=1, keepdims=True).astype(jnp.int32) - 1
    # Only NaN: an infinite reward must stay one, so that the update that it reaches is skipped.
    applies_B = jnp.where(jnp.isnan(value_B), 0.0, value_B)
    return jnp.where(step == last, applies_B[:, None], 0.0)
