"""Rewards joined: one number a token for PPO, one number a sequence for the group methods."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_sum
from distill_jax.kernels.intrinsic import intrinsic_reward
from distill_jax.rewards import adaptive, normalise, process
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores


class Joined(NamedTuple):
    """reward_B f32, of the whole sequence; reward_BR f32 a token, or None for group methods;
    intrinsic_B f32, before normalisation; the state after this batch; metrics."""

    reward_B: jax.Array
    reward_BR: jax.Array | None
    intrinsic_B: jax.Array
    state: dict[str, Any]
    metrics: dict[str, jax.Array]


def fresh_state(*, processes: bool = False) -> dict[str, Any]:
    """What the rewards carry from step to step, part of TrainState; processes: of a bonus, too."""
    more = {"process": process.fresh()} if processes else {}
    return {"normaliser": normalise.fresh(), "adaptive": adaptive.fresh(), **more}


def join(
    settings: RewardSettings,
    state: Mapping[str, Any],
    terms: Mapping[str, jax.Array],
    teacher: TeacherScores | None,
    mask_BR: jax.Array,
    ended_B: jax.Array,
    *,
    dense: bool,
    samples: int,
    penalty_B: jax.Array | None = None,
) -> Joined:
    """All terms, normalised, weighted and summed.

    Args:
        settings, state: of the rewards; as fresh_state has it.
        terms: of the host, {name: f32 [B]} (NaN: not applicable).
        teacher: its scores, or None where the intrinsic reward has no weight.
        mask_BR: f32, 1 on the response tokens that the model drew; outputs are gaps.
        ended_B: bool, whether the completion ended with EOS.
        dense: a reward a token (PPO): each gets its share of the intrinsic one, the last one all
            of the others.
        samples: G adjacent completions of a prompt.
        penalty_B: f32, added with weight 1 that never adapts, or None.
    """
    intrinsic = jnp.zeros_like(mask_BR)
    if teacher is not None:
        intrinsic = intrinsic_BR(settings, teacher, mask_BR, ended_B)
    raw_B = sequence_B(settings, intrinsic, mask_BR)
    shown = dict(terms) if teacher is None else {**terms, "intrinsic": raw_B}
    weights: dict[str, Any] = dict(settings.weights)
    state = dict(state)
    if settings.adaptive:
        # Right and wrong as 1 and 0: what they pay is no matter of the correlation.
        middle = (settings.right + settings.wrong) / 2
        correct_B = terms["correctness"]
        right_B = jnp.where(jnp.isnan(correct_B), correct_B, correct_B > middle)
        there = [name for name in adaptive.ADAPTS if name in shown]
        values = {name: shown[name].reshape(-1, samples) for name in there}
        right_PG = right_B.reshape(-1, samples)
        state["adaptive"] = adaptive.update(state["adaptive"], values, right_PG, settings.momentum)
        for name, factor in adaptive.multipliers(state["adaptive"]).items():
            weights[name] = weights[name] * factor
    sparse_B = weighted_sum({name: (weights[name], value) for name, value in terms.items()})
    if penalty_B is not None:
        sparse_B = sparse_B + penalty_B
        shown = {**shown, "overlong": penalty_B}
    reward_BR = None
    if dense:
        tokens_BR, state["normaliser"] = normalised(
            settings, state["normaliser"], intrinsic, mask_BR, sequences=False
        )
        reward_BR = weights["intrinsic"] * share_BR(settings, tokens_BR, mask_BR)
        reward_BR = reward_BR + on_last_token(sparse_B, mask_BR)
        reward_B = masked_sum(reward_BR, mask_BR, axis=1)
    else:
        scaled_B, state["normaliser"] = normalised(
            settings, state["normaliser"], raw_B, jnp.ones_like(raw_B), sequences=True
        )
        reward_B = sparse_B + weights["intrinsic"] * scaled_B
    metrics = {"reward": jnp.mean(reward_B)}
    for name, value_B in shown.items():
        metrics[f"rewards/{name}/mean"] = jnp.nanmean(value_B)
        metrics[f"rewards/{name}/std"] = jnp.nanstd(value_B)
        if settings.adaptive and name in weights:
            metrics[f"rewards/{name}/weight"] = jnp.asarray(weights[name], jnp.float32)
    if teacher is not None and settings.normaliser != "none":
        centre, spread = normalise.centre_and_spread(settings.normaliser, state["normaliser"])
        metrics |= {"rewards/intrinsic/centre": centre, "rewards/intrinsic/scale": spread}
    return Joined(reward_B, reward_BR, raw_B, state, metrics)


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


def normalised(
    settings: RewardSettings,
    state: normalise.State,
    x: jax.Array,
    mask: jax.Array,
    *,
    sequences: bool,
) -> tuple[jax.Array, normalise.State]:
    """The reward divided by its running spread (this batch included) and clipped.

    x are rewards of sequences [B], which are centred too, or of tokens [B, R], which never are;
    the mask is f32 of the same shape.
    """
    if settings.normaliser == "none":
        return x, state
    state = normalise.update(settings.normaliser, state, x, mask, settings.momentum)
    centre, spread = normalise.centre_and_spread(settings.normaliser, state)
    x = (x - centre if sequences else x) / spread
    return (jnp.clip(x, -settings.clip, settings.clip) if settings.clip else x), state


def weighted_sum(terms: dict[str, tuple[float, jax.Array]]) -> jax.Array:
    """Σ weight·term over the terms that apply; NaN in a term means not applicable there."""
    total = jnp.zeros(())
    for weight, value in terms.values():
        total = total + jnp.where(jnp.isnan(value), 0.0, weight * value)
    return total


def on_last_token(value_B: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """[B,R] with each row's value on the last token that the mask keeps, 0 elsewhere (NaN counts
    as 0)."""
    step = jnp.arange(mask_BR.shape[1])[None, :]
    last = jnp.max(jnp.where(mask_BR > 0, step, -1), axis=1, keepdims=True)
    # Only NaN: an infinite reward must stay one, so that the update that it reaches is skipped.
    applies_B = jnp.where(jnp.isnan(value_B), 0.0, value_B)
    return jnp.where(step == last, applies_B[:, None], 0.0)
