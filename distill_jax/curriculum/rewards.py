"""What an arm is worth: its signal, its own progress, what it lost, and what it gives to others.

    r(c) = w_s·signal(c) + w_p·progress(c) + w_r·forgotten(c) + w_t·transfer(c)

signal, in [0, 1]: mean |advantage| (rl) or the bounded teacher-student gap (distill).
progress, in [−1, 1]: the arm's mastery now less its moving mastery (knowledge transfer).
forgotten, in [0, 1]: best moving mastery less the present moving mastery, in arms once learnt.
transfer, in [−1, 1]: mean progress of the other arms one step after this arm was drawn, each step
weighted by the arm's share in it, over a fading memory.

Mastery, in [0, 1], is accuracy (rl) or exp(−KL) to the teacher or accuracy (distill).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.kernels.curriculum import td_update

# Arrays of shape [A]: q f32; count int32 (problems drawn); mastery f32 (moving), best f32 (its
# largest), seen bool (mastery was measured); share f32 (of the last draw); credit and exposure
# f32, whose quotient is the transfer.
State = dict[str, jax.Array]


class Measured(NamedTuple):
    """A step by arms [A]: drawn int32; signal and mastery f32, NaN where nothing was measured."""

    drawn_A: np.ndarray
    signal_A: np.ndarray
    mastery_A: np.ndarray


def fresh(arms: int, initial_q: float) -> State:
    """The state before the first step."""
    zero = jnp.zeros(arms, jnp.float32)
    return {
        "q": jnp.full(arms, initial_q, jnp.float32),
        "count": jnp.zeros(arms, jnp.int32),
        "mastery": zero,
        "best": zero,
        "seen": jnp.zeros(arms, bool),
        "share": zero,
        "credit": zero,
        "exposure": zero,
    }


def bounded_gap(kl: np.ndarray | jax.Array) -> jax.Array:
    """1 − exp(−KL) of nats a token: the teacher-student gap in [0, 1); 1 less it is a mastery."""
    return -jnp.expm1(-jnp.maximum(jnp.asarray(kl, jnp.float32), 0.0))


def measure(arm_K: np.ndarray, signal_K: np.ndarray, mastery_K: np.ndarray, arms: int) -> Measured:
    """Means over the K problems drawn, by arm; values that are not finite are skipped."""
    drawn_A = np.bincount(arm_K, minlength=arms).astype(np.int32)
    return Measured(drawn_A, _mean(arm_K, signal_K, arms), _mean(arm_K, mastery_K, arms))


def _mean(arm_K: np.ndarray, value_K: np.ndarray, arms: int) -> np.ndarray:
    value_K = np.asarray(value_K, np.float64)
    known_K = np.isfinite(value_K)
    total_A = np.bincount(arm_K[known_K], value_K[known_K], minlength=arms)
    count_A = np.bincount(arm_K[known_K], minlength=arms)
    return np.where(count_A > 0, total_A / np.maximum(count_A, 1), np.nan).astype(np.float32)


def update(state: Mapping[str, jax.Array], step: Measured, settings: CurriculumSettings) -> State:
    """The state after a step: mastery, transfer, then values by TD(0). Pure; NaN never enters it.

    An arm whose signal was not measured in this step keeps its value.
    """
    keep = settings.momentum
    known_A = jnp.isfinite(step.mastery_A)
    now_A = jnp.where(known_A, step.mastery_A, 0.0)
    # The first measurement of an arm is a starting point, not progress.
    progress_A = jnp.where(known_A & state["seen"], now_A - state["mastery"], 0.0)
    moving_A = jnp.where(state["seen"], keep * state["mastery"] + (1 - keep) * now_A, now_A)
    mastery_A = jnp.where(known_A, moving_A, state["mastery"])
    best_A = jnp.maximum(state["best"], mastery_A)
    forgotten_A = jnp.where(best_A >= settings.learnt, best_A - mastery_A, 0.0)
    credit_A, exposure_A = _transfer(state, progress_A, known_A & state["seen"], keep)
    transfer_A = credit_A / jnp.maximum(exposure_A, 1e-6)
    reward_A = (
        settings.signal_weight * jnp.asarray(step.signal_A)
        + settings.progress_weight * progress_A
        + settings.retention_weight * forgotten_A
        + settings.transfer_weight * transfer_A
    )
    drawn_A = jnp.asarray(step.drawn_A)
    sampled_A = jnp.isfinite(step.signal_A) & (drawn_A > 0)
    share_A = (drawn_A / jnp.maximum(jnp.sum(drawn_A), 1)).astype(jnp.float32)
    return {
        "q": td_update(state["q"], reward_A, sampled_A, learning_rate=settings.learning_rate),
        "count": state["count"] + drawn_A,
        "mastery": mastery_A,
        "best": best_A,
        "seen": state["seen"] | known_A,
        "share": share_A,
        "credit": credit_A,
        "exposure": exposure_A,
    }


def _transfer(
    state: Mapping[str, jax.Array], progress_A: jax.Array, known_A: jax.Array, keep: float
) -> tuple[jax.Array, jax.Array]:
    """Credit and exposure: the last draw's arms are credited with the progress of the others."""
    mine_A = jnp.where(known_A, progress_A, 0.0)
    others_A = jnp.sum(known_A) - known_A
    gain_A = (jnp.sum(mine_A) - mine_A) / jnp.maximum(others_A, 1)
    credit_A = keep * state["credit"] + state["share"] * gain_A
    exposure_A = keep * state["exposure"] + state["share"]
    learnt_A = others_A > 0
    return (
        jnp.where(learnt_A, credit_A, state["credit"]),
        jnp.where(learnt_A, exposure_A, state["exposure"]),
    )
