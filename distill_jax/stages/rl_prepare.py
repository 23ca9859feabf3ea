"""From a rollout's scores and verdicts to what the update takes: rewards and advantages."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core import rng
from distill_jax.core.masked import masked_mean
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.kernels.grpo import overlong_punishment, zero_variance_groups
from distill_jax.rewards import bonuses, combine, process, token_credit
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.training import value_warmup
from distill_jax.training.algorithms import Algorithm
from distill_jax.training.batch import PolicyBatch, ScoredRollout
from distill_jax.training.losses import PolicyScores


@functools.lru_cache(maxsize=32)
def program(rows: Any, whole: Any, **how: Any) -> Callable[..., Any]:
    """`prepare`, jitted once for equal keywords; its first result is split as `rows`."""
    return jax.jit(functools.partial(prepare, **how), out_shardings=(rows, whole, whole))


def prepare(
    reward_state: Any,
    batch: RolloutBatch,
    terms: dict[str, jax.Array],
    loss_mask_BR: jax.Array,
    teacher: TeacherScores | None,
    old: PolicyScores | None,
    ref_logp_BR: jax.Array | None,
    steps: process.StepScores | None,
    control: tuple[jax.Array, Any] | None = None,
    *,
    rewards: RewardSettings,
    bonus: process.ProcessSettings,
    algorithm: Algorithm,
    settings: Any,
    samples: int,
    max_new_tokens: int,
) -> tuple[tuple[PolicyBatch, dict[str, jax.Array]], Any, dict[str, jax.Array]]:
    """((policy batch, figures of each completion), reward state, metrics).

    control: the stage's key and the step, which the draws of a control follow from.
    """
    mask_BR, penalty_B = batch.response_mask_BR, None
    if buffer := rewards.overlong_buffer:
        # Of what the model drew: an output's length is not its doing.
        penalty_B = overlong_punishment(jnp.sum(mask_BR, axis=1), max_new_tokens, buffer)
    key = None if control is None else rng.stream_key(control[0], "control", control[1])
    joined = combine.join(
        rewards, reward_state, terms, teacher, mask_BR, batch.ended_B,
        dense=algorithm.uses_values, samples=samples, penalty_B=penalty_B,
        student_logp_BR=batch.behaviour_logp_BR, key=key,
    )  # fmt: skip
    reward_PG, terms_PG = joined.compared_B.reshape(-1, samples), None
    if rewards.aggregation == "gdpo":
        terms_PG = [(w, value_B.reshape(-1, samples)) for w, value_B in joined.terms.values()]
    scores = PolicyScores() if old is None else old
    rollout = ScoredRollout(
        response_mask_BR=mask_BR, loss_mask_BR=loss_mask_BR, ended_B=batch.ended_B,
        reward_PG=reward_PG, reward_BR=joined.reward_BR, old_logp_BR=scores.logp_BR,
        ref_logp_BR=ref_logp_BR, entropy_BR=scores.entropy_BR, value_BR=scores.value_BR,
        end_value_B=scores.end_value_B, terms=terms_PG,
    )  # fmt: skip
    made, metrics = algorithm.advantages(rollout, settings)
    metrics, state = {**joined.metrics, **metrics}, joined.state
    if value_warmup.KEY in state:
        explained = metrics["critic/vf_explained_var"]
        made, state, more = value_warmup.hold(made, state, explained, settings)
        metrics |= more
    advantage_BR, state, more = bonuses.add(
        rewards, bonus, state, steps, made.advantage_BR, terms["correctness"], mask_BR,
        batch.ended_B, samples=samples, longest=max_new_tokens,
    )  # fmt: skip
    if joined.token_BR is not None:
        divided = terms_PG is not None or settings.scale != "none"
        advantage_BR = token_credit.added(advantage_BR, joined.token_BR, rewards, divided=divided)
    made, metrics = dataclasses.replace(made, advantage_BR=advantage_BR), metrics | more
    # Of all that is paid: with token credit a group of equal verdicts has something to learn from,
    # and a completion without others, too.
    shown_PG = joined.reward_B.reshape(-1, samples)
    if samples > 1 or joined.token_BR is None:
        metrics["frac_reward_zero_std"] = jnp.mean(zero_variance_groups(shown_PG))
    metrics["reward_std"] = jnp.mean(jnp.std(shown_PG, axis=1, ddof=min(1, samples - 1)))
    policy = PolicyBatch(
        tokens_BT=batch.tokens_BT, prompts_PS=batch.prompts_PS,
        prompt_len_B=batch.prompt_len_B, targets_BR=batch.targets_BR,
        loss_mask_BR=loss_mask_BR, behaviour_logp_BR=batch.behaviour_logp_BR,
        old_logp_BR=scores.logp_BR, ref_logp_BR=ref_logp_BR, advantages=made,
    )  # fmt: skip
    record = {
        "reward_B": joined.reward_B,
        "intrinsic_B": joined.intrinsic_B,
        "advantage_B": masked_mean(made.advantage_BR, mask_BR, axis=1),
        "signal_B": masked_mean(jnp.abs(made.advantage_BR), mask_BR, axis=1),
    }
    return (policy, record), state, metrics
