"""What right answers get on top of their group's advantage: terms length and process, bounded.

The bound holds for the sum of both: whatever their weights, each right answer keeps more than the
wrong ones of its group.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.errors import RewardError
from distill_jax.kernels.bonus import add_bounded, reversed_groups
from distill_jax.rewards import length, process
from distill_jax.rewards.process import ProcessSettings, StepScores
from distill_jax.rewards.settings import RewardSettings


def add(
    rewards: RewardSettings,
    processes: ProcessSettings,
    state: dict[str, Any],
    steps: StepScores | None,
    advantage_BR: jax.Array,
    correctness_B: jax.Array,
    mask_BR: jax.Array,
    ended_B: jax.Array,
    *,
    samples: int,
    longest: int,
) -> tuple[jax.Array, dict[str, Any], dict[str, jax.Array]]:
    """Adds both bonuses to a group method's advantages; without either, nothing changes.

    Args:
        rewards, processes: settings; `rewards.length_weight` of 0 is without the term.
        state: of the rewards.
        steps: scores of the rollout's steps; None without a reward model.
        advantage_BR: f32, the same on all tokens of a response.
        correctness_B: f32, NaN where undecided; right where nearer to `rewards.right`.
        mask_BR: 1 on tokens that the model wrote.
        ended_B: bool, whether the completion ended with EOS.
        samples: G; B = P·G.
        longest: the longest answer that may be drawn, in tokens.

    Returns:
        (advantage_BR, state, metrics).
    """
    decided_B = ~jnp.isnan(correctness_B)
    right_B = decided_B & (correctness_B > (rewards.right + rewards.wrong) / 2)
    bonuses: list[jax.Array] = []
    metrics: dict[str, jax.Array] = {}
    alone = jnp.inf
    if rewards.length_weight:
        bonus_B1, figures = length.bonus(
            rewards.length, rewards.length_weight, right_B, ended_B, jnp.sum(mask_BR, axis=1),
            samples, longest,
        )  # fmt: skip
        bonuses.append(bonus_B1)
        metrics |= figures
        # In a group without wrong answers correctness pays nothing, so nothing sets the scale.
        alone = rewards.gap / 2
    if steps is not None:
        bonus_BR, watched, figures = process.bonus(
            processes, state["process"], steps, right_B, decided_B, mask_BR, samples
        )
        bonuses.append(bonus_BR)
        state, metrics = {**state, "process": watched}, metrics | figures
    if not bonuses:
        return advantage_BR, state, metrics
    out_BR, met_P = add_bounded(
        advantage_BR[:, 0], sum(bonuses[1:], bonuses[0]), right_B, decided_B, mask_BR, samples,
        alone=alone,
    )  # fmt: skip
    if steps is not None:
        metrics["process/bounded"] = jnp.mean(met_P)
    if rewards.length_weight:
        found_P = reversed_groups(out_BR, right_B, decided_B, mask_BR, samples)
        metrics |= {"length/bounded": jnp.mean(met_P), "length/reversed": jnp.mean(found_P)}
    return out_BR, state, metrics


def refuse_reversed(metrics: Mapping[str, Any]) -> None:
    """Stops a run with term length in which a wrong answer is paid as a right one or better.

    Raises:
        RewardError: the settings that are accepted exclude this; it is a defect of the code.
    """
    if float(metrics.get("length/reversed", 0.0)) > 0:
        raise RewardError(
            "a wrong answer has the advantage of a right one of its group, or more",
            wanted="each right answer above each wrong one",
            fix="report this with the run's config.json; set rewards.length_weight=0 meanwhile",
        )
