"""Bonuses for right answers, added to group advantages; none lifts a wrong answer over a right one.

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
    mask_BR: jax.Array, samples: int, *, alone: float = float("inf"),
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """advantage + bonus, with the bonus cut to half the gap between right and wrong answers.

    The gap is that of the group: least advantage of a right answer less the largest of a wrong
    one. Where it is not positive, or too small to be halved in float32, no bonus is given.

    Args:
        advantage_B: f32, one a sequence.
        bonus_BR: f32 [B, R] or [B, 1], weighted and centred; 0 in rows that are not right.
        right_B, decided_B: bool; wrong is decided and not right.
        mask_BR: 1 on response tokens.
        samples: G; B = P·G.
        alone: the bound in groups without right or without wrong answers.

    Returns:
        (advantage_BR f32, 0 beyond a response; bound_P bool, groups where the bound was met).
    """
    chex.assert_equal_shape([advantage_B, right_B, decided_B])
    least_P, most_P = _ends(advantage_B[:, None], right_B, decided_B, samples)
    half_P = jnp.maximum((least_P - most_P) / 2, 0.0)  # inf where one of the classes is missing
    kept_P = jnp.where(least_P - half_P > most_P, half_P, 0.0)
    half_P = jnp.where(jnp.isinf(half_P), alone, kept_P)
    half_B1 = jnp.repeat(half_P, samples)[:, None]
    cut_BR = jnp.clip(bonus_BR, -half_B1, half_B1)
    met_B = jnp.any((cut_BR != bonus_BR) & (mask_BR > 0), axis=1)
    met_P = jnp.any(met_B.reshape(-1, samples), axis=1)
    return (advantage_B[:, None] + cut_BR) * mask_BR, met_P


def reversed_groups(
    advantage_BR: jax.Array, right_B: jax.Array, decided_B: jax.Array, mask_BR: jax.Array,
    samples: int,
) -> jax.Array:  # fmt: skip
    """Groups in which a token of a right answer has no more than one of a wrong one, bool [P]."""
    least_P, most_P = _ends(advantage_BR, right_B, decided_B, samples, mask_BR)
    return least_P <= most_P


def _ends(advantage_BR, right_B, decided_B, samples, mask_BR=1.0) -> tuple[jax.Array, jax.Array]:
    """f32 [P]: least advantage of a right answer, inf without; largest of a wrong one, or −inf."""
    kept_BR = jnp.broadcast_to(mask_BR, advantage_BR.shape) > 0
    low_BR = jnp.where(kept_BR & right_B[:, None], advantage_BR, jnp.inf)
    high_BR = jnp.where(kept_BR & (decided_B & ~right_B)[:, None], advantage_BR, -jnp.inf)
    groups = (-1, samples * advantage_BR.shape[1])
    return jnp.min(low_BR.reshape(groups), axis=1), jnp.max(high_BR.reshape(groups), axis=1)
