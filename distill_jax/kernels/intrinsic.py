"""The teacher's intrinsic reward: its logits as Q-values, through the inverse soft Bellman step."""

import chex
import jax
import jax.numpy as jnp


def soft_value(logits_XV: jax.Array, alpha: float) -> jax.Array:
    """V(s) = α·logsumexp(Q(s,·)/α).

    α→0 gives max Q; the policy π = softmax(Q/α) has log π(a|s) = (Q(s,a) − V(s))/α.
    For a whole batch use `models.response.response_scores`, which applies the head in chunks.

    Args:
        logits_XV: Q(s,·), float [..., V].
        alpha: soft temperature α > 0 (neither the sampling nor the distillation temperature).

    Returns:
        V, float32 [...].
    """
    chex.assert_type(logits_XV, float)
    return alpha * jax.nn.logsumexp(logits_XV.astype(jnp.float32) / alpha, axis=-1)


def next_kept(x_BT: jax.Array, mask_BT: jax.Array, end_B: jax.Array) -> jax.Array:
    """For each position the value of x at the next position that the mask keeps.

    The mask may have holes; end_B is what follows a row's last kept position. At dropped positions
    the result, float [B, T], is anything finite if x is finite where kept.
    """
    size = x_BT.shape[1]
    index_BT = jnp.where(mask_BT > 0, jnp.arange(size), size)
    following_BT = jax.lax.cummin(index_BT, axis=1, reverse=True)
    # The value at t itself does not count: look from t+1 on.
    following_BT = jnp.concatenate(
        [following_BT[:, 1:], jnp.full((x_BT.shape[0], 1), size, index_BT.dtype)], axis=1
    )
    padded_BT = jnp.concatenate([x_BT, end_B[:, None].astype(x_BT.dtype)], axis=1)
    return jnp.take_along_axis(padded_BT, following_BT, axis=1)


def intrinsic_reward(
    logit_BR: jax.Array,
    value_BR: jax.Array,
    mask_BR: jax.Array,
    *,
    gamma: float = 1.0,
    bootstrap_B: jax.Array | None = None,
    canonical: bool = True,
) -> jax.Array:
    """r_t = Q(s_t,a_t) − γ·V(s_{t+1}) (raw), or α·log π(a_t|s_t) = Q(s_t,a_t) − V(s_t) (canonical).

    Logits are fixed only up to a constant for each state. The raw sum telescopes,
    Σ_t r_t = α·log π(τ|s_1) + V(s_1) − V(s_end) at γ=1, so constants inside cancel but the last
    state's does not unless it is terminal. The canonical form first shifts every state to V≡0.
    Sources: arXiv 2506.23235, 2106.12142.

    Args:
        logit_BR: teacher's logit of each sampled token, Q(s_t,a_t), float [B, R].
        value_BR: V(s_t) = α·logsumexp(Q(s_t,·)/α) of the state before it, float [B, R].
        mask_BR: 1 on sampled tokens (EOS included), [B, R].
        gamma: discount γ of the raw form; the canonical form has no next state.
        bootstrap_B: V of the state after the last kept token, float [B]: 0 for rows that ended
            with EOS, the teacher's value for truncated ones (they are not terminal). None = 0.
            The canonical form has V≡0 and ignores it.
        canonical: which form.

    Returns:
        reward, float32 [B, R], 0 where the mask is 0.
    """
    chex.assert_rank([logit_BR, value_BR, mask_BR], 2)
    chex.assert_equal_shape([logit_BR, value_BR, mask_BR])
    chex.assert_type([logit_BR, value_BR], float)
    if canonical:
        reward_BR = logit_BR - value_BR
    else:
        if bootstrap_B is None:
            bootstrap_B = jnp.zeros(logit_BR.shape[0], jnp.float32)
        chex.assert_shape(bootstrap_B, (logit_BR.shape[0],))
        reward_BR = logit_BR - gamma * next_kept(value_BR, mask_BR, bootstrap_B)
    return jnp.where(mask_BR > 0, reward_BR, 0.0).astype(jnp.float32)
