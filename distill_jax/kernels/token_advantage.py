"""A reward and an advantage of each token: log-ratios to a teacher, discounted rest, baseline."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

BASELINES = ("none", "leave_one_out")


def log_ratio_reward(
    teacher_logp_BR: jax.Array,
    student_logp_BR: jax.Array,
    mask_BR: jax.Array,
    *,
    student_weight: float,
) -> jax.Array:
    """log π_T − s·log π_S of each token, π_S the policy that the tokens were drawn from.

    s=0: its expected sum's optimum is the teacher's mode. s=1: its expectation over a state's
    tokens is −KL(π_S‖π_T), whose optimum is the teacher (arXiv 2306.08543, 2602.12125).

    Args:
        teacher_logp_BR: log π_T, or α·log π_T, float [B, R].
        student_logp_BR: log π_S, or α·log π_S, of the same tokens, float [B, R]; no gradient.
        mask_BR: 1 on sampled tokens, [B, R].
        student_weight: s.

    Returns:
        reward, float32 [B, R], 0 where the mask is 0.
    """
    chex.assert_rank([teacher_logp_BR, student_logp_BR, mask_BR], 2)
    chex.assert_equal_shape([teacher_logp_BR, student_logp_BR, mask_BR])
    ratio_BR = teacher_logp_BR - student_weight * student_logp_BR
    return jax.lax.stop_gradient(jnp.where(mask_BR > 0, ratio_BR, 0.0)).astype(jnp.float32)


def discounted_rest(reward_BR: jax.Array, mask_BR: jax.Array, discount: float) -> jax.Array:
    """G_t = r_t + γ·G_{t+1}, where t+1 is the next token that the mask keeps.

    γ=0 gives r_t, γ=1 the return to go. After the last kept token the rest is 0, whether the
    answer ended or was cut off.

    Args:
        reward_BR: r_t, float [B, R].
        mask_BR: 1 keeps, 0 drops, [B, R]; it may have holes.
        discount: γ in [0, 1].

    Returns:
        G, float32 [B, R], 0 where the mask is 0.
    """
    chex.assert_rank([reward_BR, mask_BR], 2)
    chex.assert_equal_shape([reward_BR, mask_BR])
    kept_BR = mask_BR > 0
    reward_BR = jnp.where(kept_BR, reward_BR, 0.0).astype(jnp.float32)
    if discount == 0.0:
        return reward_BR

    def step(after_B: jax.Array, at: tuple[jax.Array, jax.Array]):
        reward_B, kept_B = at
        here_B = jnp.where(kept_B, reward_B + discount * after_B, after_B)
        return here_B, here_B

    start_B = jnp.zeros_like(reward_BR[:, 0])
    _, rest_RB = jax.lax.scan(step, start_B, (reward_BR.T, kept_BR.T), reverse=True)
    return jnp.where(kept_BR, rest_RB.T, 0.0)


def group_baseline(return_BR: jax.Array, mask_BR: jax.Array, samples: int) -> jax.Array:
    """Mean return of the group's other samples at the same token, counted in kept tokens.

    A sample's own tokens never enter its baseline, so that the expected gradient does not change.
    Only samples that have such a token count; where none has, the mean over all tokens of the
    other samples.

    Args:
        return_BR: float [B, R].
        mask_BR: 1 on sampled tokens, [B, R]; it may have holes.
        samples: G adjacent samples of a prompt; B = P·G. With G=1 the baseline is 0.

    Returns:
        baseline, float32 [B, R], 0 where the mask is 0.
    """
    chex.assert_rank([return_BR, mask_BR], 2)
    chex.assert_equal_shape([return_BR, mask_BR])
    value_BR, count_B = compact(jnp.where(mask_BR > 0, return_BR, 0.0), mask_BR)
    B, R = value_BR.shape
    there_BR = (jnp.arange(R) < count_B[:, None]).astype(jnp.float32)
    value_PGR, there_PGR = (x.reshape(-1, samples, R) for x in (value_BR, there_BR))
    value_PGR = value_PGR * there_PGR

    def others(x_PG: jax.Array) -> jax.Array:
        return jnp.sum(x_PG, axis=1, keepdims=True) - x_PG

    here_PGR, count_PGR = others(value_PGR), others(there_PGR)
    all_PG1 = others(jnp.sum(value_PGR, axis=2, keepdims=True))
    all_PG1 = all_PG1 / jnp.maximum(others(jnp.sum(there_PGR, axis=2, keepdims=True)), 1.0)
    mean_PGR = jnp.where(count_PGR > 0.5, here_PGR / jnp.maximum(count_PGR, 1.0), all_PG1)
    spread_BR = jnp.take_along_axis(mean_PGR.reshape(B, R), ordinals(mask_BR), axis=1)
    return jnp.where(mask_BR > 0, spread_BR, 0.0)


def token_advantage(
    reward_BR: jax.Array, mask_BR: jax.Array, samples: int, *, discount: float, baseline: str
) -> jax.Array:
    """Discounted rest of each token less its baseline, float32 [B, R], 0 where the mask is 0.

    Raises:
        ConfigError: another baseline than one of BASELINES.
    """
    if baseline not in BASELINES:
        raise ConfigError(f"baseline={baseline!r}", wanted=f"one of {', '.join(BASELINES)}")
    return_BR = discounted_rest(reward_BR, mask_BR, discount)
    if baseline == "none":
        return return_BR
    return return_BR - group_baseline(return_BR, mask_BR, samples)


def ordinals(mask_BR: jax.Array) -> jax.Array:
    """How many kept tokens come before each kept token, int32 [B, R]; ≥ 0 elsewhere."""
    kept_BR = (mask_BR > 0).astype(jnp.int32)
    return jnp.maximum(jnp.cumsum(kept_BR, axis=1) - 1, 0)


def compact(x_BR: jax.Array, mask_BR: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(each row's kept values first, in their order, then the others; how many are kept, [B])."""
    kept_BR = mask_BR > 0
    order_BR = jnp.argsort(~kept_BR, axis=1, stable=True)
    return jnp.take_along_axis(x_BR, order_BR, axis=1), jnp.sum(kept_BR, axis=1)
