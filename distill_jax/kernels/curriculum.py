"""Curriculum arithmetic: TD(0) of arms' values, Boltzmann shares, competence by time, and the Beta
posterior of each problem's success rate."""

import chex
import jax
import jax.numpy as jnp


def td_update(
    q_A: jax.Array, reward_A: jax.Array, sampled_A: jax.Array, *, learning_rate: float
) -> jax.Array:
    """Q(c) ← α·r(c) + (1−α)·Q(c) for the arms that were sampled; the others keep their value.

    TD(0) without a next state, as the self-evolving curriculum has it (arXiv 2505.14970).

    Args:
        q_A: values, float [A].
        reward_A: r, float [A]; one that is not finite leaves its arm as it is.
        sampled_A: bool [A].
        learning_rate: α in (0, 1].

    Returns:
        float32 [A].
    """
    chex.assert_rank(q_A, 1)
    chex.assert_equal_shape([q_A, reward_A, sampled_A])
    q_A = q_A.astype(jnp.float32)
    known_A = sampled_A & jnp.isfinite(reward_A)
    moved_A = learning_rate * jnp.where(known_A, reward_A, 0.0) + (1 - learning_rate) * q_A
    return jnp.where(known_A, moved_A, q_A)


def boltzmann(
    q_A: jax.Array, available_A: jax.Array, *, temperature: float, floor: float = 0.0
) -> jax.Array:
    """p = (1−ε)·softmax(Q/τ) + ε/A over the available arms; the others have p = 0.

    The largest value is subtracted before the exponential, so that no Q/τ overflows.

    Args:
        q_A: values, float [A]; anything where the arm is not available.
        available_A: bool [A]; A in the formula is how many are.
        temperature: τ > 0. With rewards within [0, 1], τ = 1 is nearly uniform.
        floor: ε in [0, 1]; no available arm has less than ε/A.

    Returns:
        float32 [A] that sums to 1, or zeros when no arm is available.
    """
    chex.assert_rank(q_A, 1)
    chex.assert_equal_shape([q_A, available_A])
    logit_A = jnp.where(available_A, q_A.astype(jnp.float32), -jnp.inf) / temperature
    top = jnp.max(logit_A)
    odds_A = jnp.exp(logit_A - jnp.where(jnp.isfinite(top), top, 0.0))
    even_A = available_A / jnp.maximum(jnp.sum(available_A), 1)
    total = jnp.sum(odds_A)
    return (1 - floor) * odds_A / jnp.where(total > 0, total, 1.0) + floor * even_A


def competence(step: jax.Array | int, *, steps: int, start: float) -> jax.Array:
    """c(t) = min(1, √(t·(1−c₀²)/T + c₀²)): the share of problems, easiest first, that is open.

    Source: competence-based curriculum learning, arXiv 1903.09848, the square-root form.

    Args:
        step: t ≥ 0, int or float [].
        steps: T > 0, after which every problem is open.
        start: c₀ in (0, 1].

    Returns:
        float32 [].
    """
    square = jnp.asarray(step, jnp.float32) * (1 - start**2) / steps + start**2
    return jnp.minimum(1.0, jnp.sqrt(square))


def discounted_counts(
    count_N: jax.Array, new_N: jax.Array, drawn_N: jax.Array, *, memory: float
) -> jax.Array:
    """n ← μ·n + new for the problems that were drawn; the others keep their count.

    A prior a₀ is added when the posterior is read: α = a₀ + n then follows the update of MoPPS
    (arXiv 2507.04632), α ← μ·α + (1−μ)·a₀ + new, whose fixed point without verdicts is the prior.
    μ = 1: exact counts of a success rate that does not move.

    Args:
        count_N: discounted number of verdicts of one kind, float [N], ≥ 0.
        new_N: verdicts of this kind in the step, float or int [N]; 0 where nothing was drawn.
        drawn_N: bool [N].
        memory: μ in [0, 1].

    Returns:
        float32 [N].
    """
    chex.assert_rank(count_N, 1)
    chex.assert_equal_shape([count_N, new_N, drawn_N])
    count_N = count_N.astype(jnp.float32)
    return jnp.where(drawn_N, memory * count_N + new_N, count_N)


def beta_mean(right_N: jax.Array, wrong_N: jax.Array) -> jax.Array:
    """(1+r)/(2+r+w): mean of Beta(1+r, 1+w), the posterior under a uniform prior.

    Args:
        right_N, wrong_N: counts r and w, float [N], ≥ 0; ½ where both are 0.

    Returns:
        float32 [N] in (0, 1).
    """
    chex.assert_rank(right_N, 1)
    chex.assert_equal_shape([right_N, wrong_N])
    right_N, wrong_N = right_N.astype(jnp.float32), wrong_N.astype(jnp.float32)
    return (1.0 + right_N) / (2.0 + right_N + wrong_N)
