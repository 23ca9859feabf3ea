"""What a token's choice costs later: discounted divergences after it, less other samples' cost."""

import chex
import jax
import jax.numpy as jnp


def cost_to_go(cost_BT: jax.Array, mask_BT: jax.Array, *, gamma: float) -> jax.Array:
    """C_t = Σ_{i>t} γ^{i−t}·c_i over kept positions i: γ·(c_{t+1} + C_{t+1}).

    c_t is the cost of state t, before token t, and does not depend on that token: so it is not in
    C_t. i − t counts kept positions, so that a masked position is as if removed.

    Args:
        cost_BT: c_t, float [B, T].
        mask_BT: 1 keeps, 0 drops, [B, T].
        gamma: discount γ in [0, 1].

    Returns:
        float [B, T] in cost_BT's dtype, without gradient; at dropped positions what comes after.
    """
    chex.assert_rank([cost_BT, mask_BT], 2)
    chex.assert_equal_shape([cost_BT, mask_BT])
    chex.assert_type(cost_BT, float)
    kept_BT = mask_BT > 0
    cost_BT = jnp.where(kept_BT, jax.lax.stop_gradient(cost_BT), 0.0)

    def step(after_B: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        cost_B, kept_B = at
        return jnp.where(kept_B, gamma * (cost_B + after_B), after_B), after_B

    start_B = jnp.zeros_like(cost_BT[:, 0])
    _, to_go_TB = jax.lax.scan(step, start_B, (cost_BT.T, kept_BT.T), reverse=True)
    return to_go_TB.T


def less_other_samples(to_go_BT: jax.Array, samples: int) -> jax.Array:
    """C_t less the mean C_t of the same prompt's other samples at the same position.

    The others are drawn independently of this sample, given the prompt, so the baseline does not
    depend on the token and the expected gradient stays (as RLOO, arXiv 2402.14740). A sample that
    has ended counts with the 0 that it costs from there on.

    Args:
        to_go_BT: float [B, T]; B = G·P rows, the first sample of each of P prompts, then the
            second of each, and so on.
        samples: G, at least 2.

    Returns:
        float [B, T].
    """
    chex.assert_rank(to_go_BT, 2)
    to_go_GPT = to_go_BT.reshape(samples, -1, to_go_BT.shape[1])
    others_GPT = (jnp.sum(to_go_GPT, axis=0) - to_go_GPT) / (samples - 1)
    return (to_go_GPT - others_GPT).reshape(to_go_BT.shape)
