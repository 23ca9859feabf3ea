"""Process rewards: a score for each step of a solution, its loss, and what is made of the scores.

S counts the steps of a solution. Arrays are padded to the longest solution; a mask says which
steps are there.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

AGGREGATIONS = ("last", "min", "product", "mean", "geometric")


def gather_steps(hidden_BTD: jax.Array, end_BS: jax.Array) -> jax.Array:
    """The hidden states [B, S, D] at the steps' ends.

    end_BS: int32 positions in the row; any position inside it where there is no step.
    """
    chex.assert_rank([hidden_BTD, end_BS], [3, 2])
    return jnp.take_along_axis(hidden_BTD, end_BS[:, :, None], axis=1)


def right_probability(logit_BSC: jax.Array) -> jax.Array:
    """P(step right), f32 [B, S], of logits [B, S, 2] (wrong, right)."""
    return jax.nn.softmax(logit_BSC.astype(jnp.float32), axis=-1)[..., 1]


def step_cross_entropy(logit_BSC: jax.Array, label_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
    """−(y·log p₁ + (1−y)·log p₀) of each labelled step; 0 elsewhere.

    The loss of a batch is the sum over the labelled steps of all rows divided by their number, not
    the mean of the rows' means: a row of two steps would weigh as much as one of ten.

    Args:
        logit_BSC: [B, S, 2], wrong and right.
        label_BS: y in [0, 1], soft labels included; anything where the mask is 0, NaN too.
        mask_BS: 1 on labelled steps.

    Returns:
        f32 [B, S].
    """
    chex.assert_rank([logit_BSC, label_BS, mask_BS], [3, 2, 2])
    label_BS = jnp.where(mask_BS > 0, label_BS, 0.0)
    logp_BSC = jax.nn.log_softmax(logit_BSC.astype(jnp.float32), axis=-1)
    loss_BS = -(label_BS * logp_BSC[..., 1] + (1 - label_BS) * logp_BSC[..., 0])
    return jnp.where(mask_BS > 0, loss_BS, 0.0)


def label_entropy(label_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
    """H(y) of each labelled step in nats, f32 [B, S]: the least that its cross-entropy can be."""
    y_BS = jnp.where(mask_BS > 0, label_BS, 0.0)
    return -(jax.scipy.special.xlogy(y_BS, y_BS) + jax.scipy.special.xlogy(1 - y_BS, 1 - y_BS))


def implicit_reward(logp: Any, reference: Any, *, beta: float) -> Any:
    """β·(log π(y) − log π_ref(y)) of tokens, or of sums over tokens: a step, a whole solution.

    Source: arXiv 2412.01981.

    Args:
        logp, reference: log-probabilities of the same tokens, of one shape.
        beta: β > 0.
    """
    return beta * (logp - reference)


def outcome_cross_entropy(logit_B: jax.Array, right_B: jax.Array) -> jax.Array:
    """−log σ(z) of right solutions, −log σ(−z) of wrong ones; right_B is 1 or 0.

    From logits: a probability that underflows would have no logarithm.
    """
    chex.assert_equal_shape([logit_B, right_B])
    right, wrong = jax.nn.log_sigmoid(logit_B), jax.nn.log_sigmoid(-logit_B)
    return -(right_B * right + (1 - right_B) * wrong)


def aggregate(score_BS: jax.Array, mask_BS: jax.Array, how: str) -> jax.Array:
    """One number for a solution of its steps' scores.

    `product` pays for few steps, `min` does not; a product is formed as a sum of logarithms.

    Args:
        score_BS: in [0, 1].
        mask_BS: 1 on scored steps.
        how: one of AGGREGATIONS.

    Returns:
        f32 [B]; NaN for a solution without a scored step, which is neither good nor bad.

    Raises:
        ConfigError: unknown `how`.
    """
    if how not in AGGREGATIONS:
        raise ConfigError(f"aggregation={how!r}", wanted=f"one of {', '.join(AGGREGATIONS)}")
    chex.assert_equal_shape([score_BS, mask_BS])
    kept_BS = mask_BS > 0
    count_B = jnp.sum(kept_BS, axis=1)
    score_BS = score_BS.astype(jnp.float32)
    if how == "last":
        place_BS = jnp.where(kept_BS, jnp.arange(score_BS.shape[1]), -1)
        last_B = jnp.max(place_BS, axis=1)
        out_B = jnp.take_along_axis(score_BS, jnp.maximum(last_B, 0)[:, None], axis=1)[:, 0]
    elif how == "min":
        out_B = jnp.min(jnp.where(kept_BS, score_BS, jnp.inf), axis=1)
    elif how == "mean":
        out_B = jnp.sum(jnp.where(kept_BS, score_BS, 0.0), axis=1) / jnp.maximum(count_B, 1)
    else:
        log_B = jnp.sum(jnp.log(jnp.where(kept_BS, score_BS, 1.0)), axis=1)
        out_B = jnp.exp(log_B / jnp.maximum(count_B, 1) if how == "geometric" else log_B)
    return jnp.where(count_B > 0, out_B, jnp.nan)


def min_form(reward_BS: jax.Array, mask_BS: jax.Array, *, temperature: float) -> jax.Array:
    """r_s·w_s with w = softmax(−r/T) over the steps: nearly all credit on the worst step (PURE).

    The sum tends to the minimum as T tends to 0. A sum of plain rewards would pay for more steps.
    Source: arXiv 2504.15275.

    Args:
        reward_BS: r in [−1, 1], e.g. p₁ − p₀.
        mask_BS: 1 on scored steps.
        temperature: T > 0.

    Returns:
        f32 [B, S], 0 where there is no step.
    """
    chex.assert_equal_shape([reward_BS, mask_BS])
    kept_BS = mask_BS > 0
    weight_BS = jax.nn.softmax(-reward_BS / temperature, axis=1, where=kept_BS)
    return jnp.where(kept_BS, reward_BS * weight_BS, 0.0)
