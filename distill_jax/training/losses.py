"""Losses of stages: the place where a model's scores meet the kernels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_sum
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.kernels.policy_losses import Normaliser, normaliser
from distill_jax.models import value_head
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import in_parts, located, response_scores, tokens_of_a_row
from distill_jax.training.algorithms import Algorithm
from distill_jax.training.batch import PolicyBatch
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, Metrics, TotalsFn


@functools.lru_cache(maxsize=32)
def sft(model: QwenModel, vocab: int) -> tuple[LossFn, TotalsFn]:
    """Cross-entropy on response tokens, EOS included: mean over the batch's tokens.

    The batch holds tokens_BT, targets_BR, loss_mask_BR, and prompt_len_B or, where rows hold
    several examples, segment_BT and at_BR.
    """

    def totals(batch: Any) -> jax.Array:
        return jnp.maximum(jnp.sum(batch["loss_mask_BR"]), 1.0)

    def loss(trainable: Any, frozen: Any, batch: Any, tokens: jax.Array, key: jax.Array):
        scores = response_scores(
            model,
            join(trainable, frozen),
            *located(batch),
            batch["targets_BR"],
            vocab=vocab,
            dropout_key=key,
        )
        mask_BR = batch["loss_mask_BR"]
        value = -masked_sum(scores.logp_BR, mask_BR) / tokens
        return value, {}

    return loss, totals


@functools.lru_cache(maxsize=32)
def policy(
    model: QwenModel, algorithm: Algorithm, settings: Any, *, temperature: float, vocab: int
) -> tuple[LossFn, TotalsFn]:
    """The algorithm's loss on response tokens, of a PolicyBatch: see `of_policy`."""

    def totals(batch: Any) -> Normaliser:
        return normaliser(batch.loss_mask_BR)

    def loss(trainable: Any, frozen: Any, batch: PolicyBatch, norm: Normaliser, key: jax.Array):
        del key
        return of_policy(
            model, algorithm, settings, trainable, frozen, batch, norm,
            temperature=temperature, vocab=vocab,
        )[:2]  # fmt: skip

    return loss, totals


def of_policy(
    model: QwenModel,
    algorithm: Algorithm,
    settings: Any,
    trainable: Any,
    frozen: Any,
    batch: PolicyBatch,
    norm: Normaliser,
    *,
    temperature: float,
    vocab: int,
) -> tuple[jax.Array, Metrics, jax.Array]:
    """(a microbatch's part of the algorithm's loss, its metrics, the states hidden_BRD).

    Log-probabilities at the sampling temperature. Dropout is off: the policy that is trained is the
    one that was sampled. norm: of the whole batch.

    Metrics besides the algorithm's: entropy, and the sampler's agreement with the trainer under
    TRL's names (`sampling/*`), taken against the policy before the step's first update.
    """
    scored = response_scores(
        model,
        join(trainable, frozen),
        *located(vars(batch)),
        batch.targets_BR,
        temperature=temperature,
        vocab=vocab,
        entropy=True,
    )
    assert scored.entropy_BR is not None
    entropy_BR = scored.entropy_BR
    if not settings.entropy_coef:  # a figure alone: keep it out of the backward pass
        entropy_BR = jax.lax.stop_gradient(entropy_BR)
    scores = {"logp_BR": scored.logp_BR, "entropy_BR": entropy_BR}
    if algorithm.uses_values:
        hidden_BRD = _for_values(scored.hidden_BRD, batch.advantages.policy_B)
        scores["value_BR"] = value_head.apply(trainable["value_head"], hidden_BRD)
    mask_BR = batch.loss_mask_BR
    value, metrics = algorithm.loss(scores, batch, norm, settings)
    metrics = {
        **metrics,
        **_agreement(scored.logp_BR, batch, norm),
        "entropy": masked_sum(entropy_BR, mask_BR) / norm.tokens,
    }
    return value, jax.lax.stop_gradient(metrics), scored.hidden_BRD


def _for_values(hidden_BRD: jax.Array, policy_B: jax.Array | None) -> jax.Array:
    """The head's input, without a gradient in rows that train the head alone."""
    if policy_B is None:
        return hidden_BRD
    return jnp.where(policy_B[:, None, None] > 0, hidden_BRD, jax.lax.stop_gradient(hidden_BRD))


def _agreement(logp_BR: jax.Array, batch: PolicyBatch, norm: Normaliser) -> Metrics:
    mask_BR = batch.loss_mask_BR
    old_BR = logp_BR if batch.old_logp_BR is None else batch.old_logp_BR
    l_BR = jnp.where(mask_BR > 0, old_BR - batch.behaviour_logp_BR, 0.0)
    ratio_BR = jnp.exp(l_BR)
    kept = mask_BR > 0
    return {
        "sampling/sampling_logp_difference/mean": masked_sum(jnp.abs(l_BR), mask_BR) / norm.tokens,
        "sampling/sampling_logp_difference/max": jnp.max(jnp.abs(l_BR)),
        "sampling/importance_sampling_ratio/mean": masked_sum(ratio_BR, mask_BR) / norm.tokens,
        "sampling/importance_sampling_ratio/min": jnp.min(jnp.where(kept, ratio_BR, jnp.inf)),
        "sampling/importance_sampling_ratio/max": jnp.max(jnp.where(kept, ratio_BR, 0.0)),
    }


class PolicyScores(NamedTuple):
    """f32 scores of response tokens: logp_BR, and where asked for entropy_BR, value_BR and
    end_value_B, the value of the state after the last response token."""

    logp_BR: jax.Array | None = None
    entropy_BR: jax.Array | None = None
    value_BR: jax.Array | None = None
    end_value_B: jax.Array | None = None


def score_policy(
    model: QwenModel,
    trainable: Any,
    frozen: Any,
    batch: RolloutBatch,
    *,
    temperature: float,
    vocab: int,
    values: bool,
    entropy: bool = False,
) -> PolicyScores:
    """Scores of a rollout's response tokens under these weights, at the sampling temperature.

    vocab: tokens that exist. `values` asks for value_BR, and end_value_B for truncated answers.
    """
    targets_BR = batch.targets_BR
    if values:
        targets_BR = jnp.pad(targets_BR, ((0, 0), (0, 1)))
    scored = response_scores(
        model,
        join(trainable, frozen),
        *located(vars(batch)),
        targets_BR,
        temperature=temperature,
        vocab=vocab,
        entropy=entropy,
    )
    R = batch.targets_BR.shape[1]
    entropy_BR = None if scored.entropy_BR is None else scored.entropy_BR[:, :R]
    if not values:
        return PolicyScores(scored.logp_BR[:, :R], entropy_BR)
    value_BR = value_head.apply(trainable["value_head"], scored.hidden_BRD)
    end_B = jnp.take_along_axis(value_BR, batch.response_len_B[:, None], axis=1)[:, 0]
    return PolicyScores(scored.logp_BR[:, :R], entropy_BR, value_BR[:, :R], end_B)


@functools.lru_cache(maxsize=32)
def policy_scorer(where: Any, model: QwenModel, **how: Any) -> Callable[..., PolicyScores]:
    """(trainable, frozen, batch) -> `score_policy` of these keywords in parts, split as `where`.

    One program of equal arguments.
    """

    def score(trainable: Any, frozen: Any, batch: RolloutBatch) -> PolicyScores:
        of_rows = functools.partial(score_policy, model, trainable, frozen, **how)
        return in_parts(of_rows, batch, tokens_of_a_row(vars(batch)), model.shards)

    return jax.jit(score, out_shardings=where)
