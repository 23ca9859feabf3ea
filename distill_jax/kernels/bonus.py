"""A bonus for right answers, added to group advantages; it never lifts a wrong one over a right.

The bonus stays outside the division by the group's spread: among answers that are all right, a
spread of 0.003 would make ten tokens of length weigh as much as right against wrong.
"""

import chex
import jax
import jax.numpy as jnp


def return_to_go(step_reward_BS: jax.Array, step_BR: jax.Array) -> jax.Array:
    """Σ of the rewards of a token's own step and of all later ones, f32 [B, R].

    step_reward_BS: 0 where there is no step; step_BR: int32, the step that a token belongs to.
    """
    chex.assert_rank([step_reward_BS, step_BR], 2)
    left_BS = jnp.cumsum(step_reward_BS[:, ::-1], axis=1)[:, ::-1]
    return jnp.take_along_axis(left_BS, step_BR, axis=1)


def centred_over_right(bonus_BR: jax.Array, right_B: jax.Array, mask_BR: jax.Array, samples: int):
    """The bonus less its mean over the tokens of the group's right answers; 0 in all other rows.

    Rows other than right ones would otherwise get the negative of the mean. The mean is over
    tokens, not over steps: a baseline for each step pays for fewer of them (PURE, arXiv
    2504.15275).

    Args:
        bonus_BR: f32; anything where the row is not right or the mask is 0, NaN too.
        right_B: bool.
        mask_BR: 1 on response tokens.
        samples: G; B = P·G.

    Returns:
        f32 [B, R].
    """
    chex.assert_rank([bonus_BR, right_B, mask_BR], [2, 1, 2])
    kept_BR = (mask_BR > 0) & right_B[:, None]
    bonus_BR = jnp.where(kept_BR, bonus_BR, 0.0)
    groups = (-1, samples * bonus_BR.shape[1])
    count_P = jnp.sum(kept_BR.reshape(groups), axis=1)
    mean_P = jnp.sum(bonus_BR.reshape(groups), axis=1) / jnp.maximum(count_P, 1)
    return jnp.where(kept_BR, bonus_BR - jnp.repeat(mean_P, samples)[:, None], 0.0)


def add_bounded(
    advantage_B: jax.Array, bonus_BR: jax.Array, right_B: jax.Array, decided_B: jax.Array,
    mask_BR: jax.Array, samples: int,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """advantage + bonus, with the bonus cut to half the gap between right and wrong answers.

    The gap is that of the group: least advantage of a right answer less the largest of a wrong
    one. Where it is not positive no bonus is given; in a group without both there is no bound.

    Args:
        advantage_B: f32, one a sequence.
        bonus_BR: f32, weighted and centred; 0 in rows that are not right.
        right_B, decided_B: bool; wrong is decided and not right.
        mask_BR: 1 on response tokens.
        samples: G; B = P·G.

    Returns:
        (advantage_BR f32, 0 beyond a response; bound_P bool, groups where the bound was met).
    """
    chex.assert_equal_shape([advantage_B, right_B, decided_B])
    right_PG = right_B.reshape(-1, samples)
    wrong_PG = (decided_B & ~right_B).reshape(-1, samples)
    advantage_PG = advantage_B.reshape(-1, samples)
    least_P = jnp.min(jnp.where(right_PG, advantage_PG, jnp.inf), axis=1)
    most_P = jnp.max(jnp.where(wrong_PG, advantage_PG, -jnp.inf), axis=1)
    half_P = jnp.maximum((least_P - most_P) / 2, 0.0)  # inf where one of the classes is missing
    half_B1 = jnp.repeat(half_P, samples)[:, None]
    cut_BR = jnp.clip(bonus_BR, -half_B1, half_B1)
    met_B = jnp.any((cut_BR != bonus_BR) & (mask_BR > 0), axis=1)
    met_P = jnp.any(met_B.reshape(-1, samples), axis=1)
    return (advantage_B[:, None] + cut_BR) * mask_BR, met_P
