"""Group-relative advantages, and DAPO's length penalty."""

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

SCALES = ("group", "batch", "none")
BASELINES = ("mean", "leave_one_out")


def zero_variance_groups(reward_PG: jax.Array) -> jax.Array:
    """Which groups have all rewards equal, bool [P]: they teach nothing and may be resampled."""
    chex.assert_rank(reward_PG, 2)
    return jnp.max(reward_PG, axis=1) == jnp.min(reward_PG, axis=1)


def group_advantage(
    reward_PG: jax.Array,
    *,
    scale: str = "group",
    ddof: int = 1,
    eps: float = 1e-6,
    baseline: str = "mean",
) -> jax.Array:
    """A_i = (r_i − b_i)/(σ + eps), with b the group's mean or the mean of the others.

    GRPO: scale "group" (2402.03300). Dr. GRPO: scale "none" (2503.20783). RLOO: scale "none",
    baseline "leave_one_out", b_i = mean_{j≠i} r_j, that is G/(G−1)·(r_i − mean) (2402.14740).

    Args:
        reward_PG: one reward a sample, float [P, G].
        scale: σ is the std of the group, of the whole batch, or absent ("none": no division).
        ddof: 1 divides the variance by n−1 (as TRL and verl), 0 by n.
        eps: added to σ.
        baseline: "mean" or "leave_one_out".

    Returns:
        advantage, float32 [P, G]. A group with equal rewards gives exactly 0, never the
        rounding noise of its mean divided by eps; so does a group of one sample.

    Raises:
        ConfigError: unknown scale or baseline.
    """
    chex.assert_rank(reward_PG, 2)
    if scale not in SCALES:
        raise ConfigError(f"scale={scale!r}", wanted=f"one of {', '.join(SCALES)}")
    if baseline not in BASELINES:
        raise ConfigError(f"baseline={baseline!r}", wanted=f"one of {', '.join(BASELINES)}")
    reward_PG = jax.lax.stop_gradient(reward_PG).astype(jnp.float32)
    group = reward_PG.shape[1]
    advantage_PG = reward_PG - jnp.mean(reward_PG, axis=1, keepdims=True)
    if baseline == "leave_one_out":
        advantage_PG *= group / max(group - 1, 1)
    if scale == "group":
        advantage_PG /= _std(reward_PG, ddof, axis=1) + eps
    elif scale == "batch":
        advantage_PG /= _std(reward_PG, ddof, axis=None) + eps
    return jnp.where(zero_variance_groups(reward_PG)[:, None], 0.0, advantage_PG)


def _std(x: jax.Array, ddof: int, axis: int | None) -> jax.Array:
    count = x.size if axis is None else x.shape[axis]
    square = jnp.square(x - jnp.mean(x, axis=axis, keepdims=True))
    # One sample has no spread: divide by 1, not by 0.
    return jnp.sqrt(jnp.sum(square, axis=axis, keepdims=True) / max(count - ddof, 1))


def overlong_punishment(length_B: jax.Array, max_len: int, buffer: int) -> jax.Array:
    """DAPO's soft punishment of length, added to the reward.

    0 up to L_max − C, then linear (L_max − C − L)/C down to −1 at L_max, −1 beyond.
    Source: arXiv 2503.14476.

    Args:
        length_B: L, response tokens, EOS included, int or float [B].
        max_len: L_max, tokens.
        buffer: C > 0, tokens.

    Returns:
        float32 [B] in [−1, 0].

    Raises:
        ConfigError: a buffer that is not in 1..max_len.
    """
    if not 0 < buffer <= max_len:
        raise ConfigError(f"buffer={buffer} with max_len={max_len}", wanted="1 to max_len")
    excess_B = length_B.astype(jnp.float32) - (max_len - buffer)
    return -jnp.clip(excess_B / buffer, 0.0, 1.0)
