"""First steps of PPO that train the value head alone, until it explains the returns.

A head of zeros makes whitened returns of the first advantages. VAPO (arXiv 2504.05118) therefore
fits the values to the returns of the policy as it is, before it is trained.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.training.algorithms import PPOSettings
from distill_jax.training.batch import Advantages

KEY = "value_warmup"
State = dict[str, Any]


def fresh(settings: PPOSettings) -> State:
    """What the reward state holds of it before the first step: {} without such steps."""
    if not settings.value_warmup_steps:
        return {}
    return {KEY: {"steps": jnp.zeros((), jnp.int32), "over": jnp.zeros((), bool)}}


def hold(
    made: Advantages, state: State, explained: jax.Array, settings: PPOSettings
) -> tuple[Advantages, State, dict[str, jax.Array]]:
    """Marks the rows of a step in which the policy is not trained.

    The warm-up is over, for good, with the first rollout whose returns the values explain, and
    after value_warmup_steps steps. That rollout trains the policy.

    Args:
        made: of the step's rollout.
        state: with what `fresh` has added.
        explained: the values' explained variance of the returns, f32 [].
        settings: its length and its threshold.

    Returns:
        (made with policy_B, the state after the step, {"critic/warmup": whether it is one}).
    """
    before = state[KEY]
    over = (
        before["over"]
        | (explained >= settings.value_warmup_explained)
        | (before["steps"] >= settings.value_warmup_steps)
    )
    policy_B = jnp.full(made.advantage_BR.shape[:1], over, jnp.float32)
    after = {"steps": before["steps"] + ~over, "over": over}
    metrics = {"critic/warmup": 1.0 - over.astype(jnp.float32)}
    return dataclasses.replace(made, policy_B=policy_B), {**state, KEY: after}, metrics
