"""RL algorithms as entries of one dictionary: advantages of a rollout, loss of a batch.

Both functions are pure and take arrays; `losses.py` runs the model for them. An entry says what
it needs besides the rollout (values); nothing else in the project asks which algorithm it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.core.masked import masked_mean, masked_sum, whiten
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.kernels import importance
from distill_jax.kernels.gae import gae, length_lambda
from distill_jax.kernels.gdpo import decoupled_advantage
from distill_jax.kernels.grpo import BASELINES, SCALES, group_advantage
from distill_jax.kernels.policy_losses import (
    LOSSES,
    Normaliser,
    PolicyLossSettings,
    mean_of_sequence_means,
)
from distill_jax.kernels.ppo import kl_estimate, unbiased_kl, value_loss
from distill_jax.training.batch import Advantages, PolicyBatch, ScoredRollout, needed

Arrays = dict[str, jax.Array]
# Estimates of the KL to the reference that can be a loss.
KL_LOSSES = ("k3", "unbiased")


@dataclass(frozen=True)
class GroupSettings:
    """Group methods: GRPO and its variants."""

    UNREAD: ClassVar = (
        Unread(("kl",), ("beta",), off),
        Unread(
            ("importance_cap", "importance_floor"), ("importance",), lambda mode: mode == "none"
        ),
    )

    scale: str = setting(
        "group",
        "Standard deviation that advantages are divided by: of the group, of the batch, or none.",
        choices=SCALES,
    )
    baseline: str = setting("mean", "The group's mean or that of the others.", choices=BASELINES)
    ddof: int = setting(1, "1: sample std (as TRL and verl); 0: population std.", low=0, high=1)
    beta: float = setting(
        0.0, "Weight of the KL to the reference in the loss; 0 runs no reference.", low=0.0
    )
    kl: str = setting(
        "k3",
        "Its estimate: k3, or unbiased: k3·ρ, whose gradient is that of the KL (TRL's default).",
        choices=KL_LOSSES,
    )
    entropy_coef: float = setting(0.0, "Entropy bonus in the loss.", low=0.0)
    clip: PolicyLossSettings = setting(PolicyLossSettings(), "Clipping of the ratio.")
    importance: str = setting(
        "truncate",
        "Correction by trainer/sampler probability, of each token or of the whole sequence: "
        "bounded weight, mask, none.",
        choices=importance.MODES,
    )
    importance_cap: float = setting(2.0, "Largest such weight.", above=0.0)
    importance_floor: float = setting(
        0.0, "Least such weight, below importance_cap; 0: no bound.", low=0.0
    )
    off_policy_mask_threshold: float | None = setting(
        None,
        "Tokens with A < 0 are not trained in sequences whose mean log π_sampler − log π is above "
        "this, nats a token (DeepSeek-V3.2); None: off.",
        above=0.0,
    )
    top_entropy: float = setting(
        1.0, "Fraction of tokens with the highest entropy that are trained.", above=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        if self.importance_floor >= self.importance_cap:
            raise ConfigError(
                f"importance_floor={self.importance_floor}",
                wanted=f"less than importance_cap={self.importance_cap}",
            )

    def at_length(self, max_new_tokens: int) -> "GroupSettings":
        """With dr_grpo's divisor filled in, unless it is set: the longest answer that may be drawn.

        The response axis' extent, the kernel's own default, follows the longest answer of the
        batch; divided by it, the loss of a token would depend on the lengths of others.
        """
        if self.clip.max_completion_length:
            return self
        return replace(self, clip=replace(self.clip, max_completion_length=max_new_tokens))


@dataclass(frozen=True)
class PPOSettings:
    """Clipped PPO with a value head and a reward on every token."""

    UNREAD: ClassVar = (
        Unread(("lam",), ("lam_alpha",), bool),
        Unread(("value_warmup_explained",), ("value_warmup_steps",), off),
    )

    gamma: float = setting(1.0, "Discount of GAE.", above=0.0, high=1.0)
    lam: float = setting(0.95, "λ of GAE.", low=0.0, high=1.0)
    lam_alpha: float = setting(
        0.0, "α of λ = 1 − 1/(α·tokens), by each answer's length (VAPO: .05); 0: lam.", low=0.0
    )
    critic_lam: float | None = setting(
        None, "λ of the value's target (VAPO: 1); None: that of the advantages.", low=0.0, high=1.0
    )
    clip_low: float = setting(0.2, "ε of the policy's clip, below.", low=0.0)
    clip_high: float = setting(0.2, "ε of the policy's clip, above.", low=0.0)
    value_clip: float = setting(0.2, "Clip of the value around its old one; 0 is off.", low=0.0)
    value_coef: float = setting(0.1, "Weight of the value loss.", low=0.0)
    head_rate: float = setting(
        1.0, "Learning rate of the value head, as a multiple of optimizer.learning_rate.", above=0.0
    )
    value_warmup_steps: int = setting(
        0, "Most first steps that train the value head alone, on returns (VAPO).", low=0
    )
    value_warmup_explained: float = setting(
        0.5, "Explained variance of the returns that ends these steps before.", high=1.0
    )
    kl_coef: float = setting(
        0.05, "Weight β of the KL to the reference in the reward; 0 runs no reference.", low=0.0
    )
    entropy_coef: float = setting(0.0, "Entropy bonus in the loss.", low=0.0)
    whiten: bool = setting(True, "Whiten the advantages over the rollout's tokens.")

    def __post_init__(self) -> None:
        if self.value_warmup_steps and self.critic_lam != 1.0:
            raise ConfigError(
                f"value_warmup_steps={self.value_warmup_steps} with critic_lam={self.critic_lam}",
                wanted="critic_lam=1: targets of λ < 1 are values that are not trained yet",
            )
        if self.value_warmup_steps and not self.value_coef:
            raise ConfigError(
                f"value_warmup_steps={self.value_warmup_steps} with value_coef=0",
                wanted="value_coef above 0: these steps train nothing else",
            )


@dataclass(frozen=True)
class Algorithm:
    """One entry.

    Attributes:
        uses_values: a value head is trained and scored before the update.
        reference_weight: settings -> weight of the KL to the reference; 0: none is run.
        advantages: (rollout, settings) -> (advantage_BR and what else the loss needs, metrics).
        loss: (scores, batch, norm, settings) -> (share of the loss, metrics that add up).
        sequence_mean: the loss averages each answer over its own tokens, so that a token of a long
            answer counts less.
    """

    uses_values: bool
    reference_weight: Callable[[Any], float]
    advantages: Callable[[ScoredRollout, Any], tuple[Advantages, Arrays]]
    loss: Callable[[Arrays, PolicyBatch, Normaliser, Any], tuple[jax.Array, Arrays]]
    sequence_mean: bool = False


def group_advantages(rollout: ScoredRollout, settings: GroupSettings) -> tuple[Advantages, Arrays]:
    """One advantage a sequence from reward_PG, or from its terms, spread over its tokens.

    With top_entropy below 1 the rollout needs entropy_BR: which tokens have the highest entropy is
    decided over the whole rollout, not over a microbatch.
    """
    how: Any = {"scale": settings.scale, "ddof": settings.ddof, "baseline": settings.baseline}
    if rollout.terms is None:
        advantage_PG = group_advantage(rollout.reward_PG, **how)
    else:
        advantage_PG = decoupled_advantage(rollout.terms, **how)
    advantage_BR = advantage_PG.reshape(-1, 1) * rollout.response_mask_BR
    top_BR = None
    if settings.top_entropy < 1.0:
        top_BR = importance.top_entropy_mask(
            needed(rollout.entropy_BR, "entropy_BR"), rollout.loss_mask_BR, settings.top_entropy
        )
    return Advantages(advantage_BR, top_entropy_BR=top_BR), {}


def group_loss(name: str) -> Callable[..., tuple[jax.Array, Arrays]]:
    """The loss of one variant of `kernels.policy_losses.LOSSES`."""
    policy_loss = LOSSES[name]

    def loss(
        scores: Arrays, batch: PolicyBatch, norm: Normaliser, settings: GroupSettings
    ) -> tuple[jax.Array, Arrays]:
        logp_BR, mask_BR = scores["logp_BR"], batch.loss_mask_BR
        old_BR = jax.lax.stop_gradient(logp_BR) if batch.old_logp_BR is None else batch.old_logp_BR
        weight_BR = importance.importance_weight(
            old_BR,
            batch.behaviour_logp_BR,
            mask_BR,
            mode=settings.importance,
            cap=settings.importance_cap,
            floor=settings.importance_floor,
        )
        metrics: Arrays = {}
        if settings.off_policy_mask_threshold is not None:
            near_BR = importance.off_policy_mask(
                logp_BR,
                batch.behaviour_logp_BR,
                batch.advantages.advantage_BR,
                mask_BR,
                threshold=settings.off_policy_mask_threshold,
            )
            weight_BR *= near_BR
            metrics["sampling/off_policy_masked_mean"] = (
                masked_sum(1.0 - near_BR, mask_BR) / norm.tokens
            )
        if settings.top_entropy < 1.0:
            weight_BR *= needed(batch.advantages.top_entropy_BR, "top_entropy_BR")
        extra_BR = jnp.zeros_like(logp_BR)
        if settings.beta:
            ref_BR = needed(batch.ref_logp_BR, "ref_logp_BR")
            if settings.kl == "unbiased":
                kl_BR = unbiased_kl(logp_BR, old_BR, ref_BR, mask_BR)
            else:
                kl_BR = kl_estimate(logp_BR, ref_BR, mask_BR, kind="k3")
            extra_BR += settings.beta * kl_BR
            metrics["kl"] = masked_sum(kl_BR, mask_BR) / norm.tokens
        if settings.entropy_coef:
            extra_BR -= settings.entropy_coef * scores["entropy_BR"]
        value, more = policy_loss(
            logp_BR,
            old_BR,
            batch.advantages.advantage_BR,
            mask_BR,
            settings.clip,
            norm=norm,
            weight_BR=weight_BR,
            extra_BR=extra_BR,
        )
        return value, {**metrics, **more}

    return loss


def ppo_advantages(rollout: ScoredRollout, settings: PPOSettings) -> tuple[Advantages, Arrays]:
    """Token advantages and returns by GAE; the KL to the reference (k1) is part of the reward.

    The rollout needs reward_BR, value_BR and end_value_B; with kl_coef also old_logp_BR and
    ref_logp_BR.
    """
    mask_BR = rollout.response_mask_BR
    reward_BR = needed(rollout.reward_BR, "reward_BR")
    value_BR = needed(rollout.value_BR, "value_BR")
    end_value_B = needed(rollout.end_value_B, "end_value_B")
    metrics: Arrays = {}
    if settings.kl_coef:
        kl_BR = kl_estimate(
            needed(rollout.old_logp_BR, "old_logp_BR"),
            needed(rollout.ref_logp_BR, "ref_logp_BR"),
            mask_BR,
            kind="k1",
        )
        reward_BR = reward_BR - settings.kl_coef * kl_BR
        metrics["objective/kl"] = jnp.mean(masked_sum(kl_BR, mask_BR, axis=1))
    lam = length_lambda(mask_BR, settings.lam_alpha) if settings.lam_alpha else settings.lam
    bootstrap_B = jnp.where(rollout.ended_B, 0.0, end_value_B)
    estimate = partial(
        gae, reward_BR, value_BR, mask_BR, gamma=settings.gamma, bootstrap_B=bootstrap_B
    )
    advantage_BR, return_BR = estimate(lam=lam)
    if settings.critic_lam is not None:
        return_BR = estimate(lam=settings.critic_lam)[1]
    if settings.whiten:
        # Over the tokens that are trained; their statistics are what the loss sees.
        advantage_BR = whiten(advantage_BR, rollout.loss_mask_BR)
    error = masked_mean(jnp.square(return_BR - value_BR), mask_BR)
    spread = masked_mean(jnp.square(return_BR - masked_mean(return_BR, mask_BR)), mask_BR)
    explained = 1.0 - error / jnp.maximum(spread, 1e-8)
    # Equal returns leave nothing to explain: values of 0 fit those of a rollout all wrong.
    explained = jnp.where(spread > 1e-8, explained, jnp.minimum(explained, 0.0))
    metrics["critic/vf_explained_var"] = explained
    metrics["objective/rlhf_reward"] = jnp.mean(masked_sum(reward_BR, mask_BR, axis=1))
    return Advantages(advantage_BR, return_BR=return_BR, old_value_BR=value_BR), metrics


def ppo_loss(
    scores: Arrays, batch: PolicyBatch, norm: Normaliser, settings: PPOSettings
) -> tuple[jax.Array, Arrays]:
    """Clipped policy loss + value_coef·clipped value loss − entropy_coef·entropy, token mean.

    Without the terms of the policy in rows whose policy_B is 0.
    """
    mask_BR, made = batch.loss_mask_BR, batch.advantages
    policy_BR = None
    if made.policy_B is not None:
        policy_BR = jnp.broadcast_to(made.policy_B[:, None], mask_BR.shape)
    old_BR = needed(batch.old_logp_BR, "old_logp_BR")
    clip = PolicyLossSettings(clip_low=settings.clip_low, clip_high=settings.clip_high)
    policy, metrics = LOSSES["bnpo"](
        scores["logp_BR"], old_BR, made.advantage_BR, mask_BR, clip, norm=norm, weight_BR=policy_BR
    )
    value_BR = value_loss(
        scores["value_BR"],
        needed(made.old_value_BR, "old_value_BR"),
        needed(made.return_BR, "return_BR"),
        mask_BR,
        clip=settings.value_clip or float("inf"),
    )
    value = masked_sum(value_BR, mask_BR) / norm.tokens
    total = policy + settings.value_coef * value
    if settings.entropy_coef:
        bonus_BR = scores["entropy_BR"] if policy_BR is None else scores["entropy_BR"] * policy_BR
        bonus = masked_sum(bonus_BR, mask_BR) / norm.tokens
        total = total - settings.entropy_coef * bonus
    ratio_BR = jnp.exp(jnp.where(mask_BR > 0, scores["logp_BR"] - old_BR, 0.0))
    metrics = {
        **metrics,
        "loss/policy_avg": policy,
        "loss/value_avg": value,
        "val/ratio": masked_sum(ratio_BR, mask_BR) / norm.tokens,
        "policy/clipfrac_avg": metrics["clip_ratio/region_mean"],
    }
    return total, jax.lax.stop_gradient(metrics)


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm(True, lambda s: s.kl_coef, ppo_advantages, ppo_loss),
    **{
        name: Algorithm(
            False,
            lambda s: s.beta,
            group_advantages,
            group_loss(name),
            sequence_mean=one.average is mean_of_sequence_means,
        )
        for name, one in LOSSES.items()
    },
}
