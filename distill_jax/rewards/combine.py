"""Rewards joined: one number a token for PPO, one number a sequence for the group methods."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean, masked_sum
from distill_jax.kernels.intrinsic import intrinsic_reward
from distill_jax.kernels.token_advantage import log_ratio_reward
from distill_jax.rewards import adaptive, normalise, permuted, process, token_credit
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores

# Nats. log π_T − log π_S of equal models is rounding, 1e-6 in float32: divided by its own spread it
# would weigh as much as knowledge.
_LEAST_SPREAD = 1e-4


class Joined(NamedTuple):
    """A batch's rewards.

    Attributes:
        reward_B: f32, of the whole sequence, as shown.
        compared_B: f32, what a group method compares: reward_B, or with credit=token that without
            the intrinsic part.
        reward_BR: f32 a token, for PPO; None for group methods.
        token_BR: f32, the weighted dense part of each token's advantage; None with
            credit=sequence. With exact it is 0: the loss has that part.
        terms: {name: (weight, f32 [B])} whose sum is compared_B; NaN where one does not apply.
        intrinsic_B: f32, before normalisation.
        state: the state after this batch.
        metrics: f32 [] by name.
    """

    reward_B: jax.Array
    compared_B: jax.Array
    reward_BR: jax.Array | None
    token_BR: jax.Array | None
    terms: dict[str, tuple[Any, jax.Array]]
    intrinsic_B: jax.Array
    state: dict[str, Any]
    metrics: dict[str, jax.Array]


def fresh_state(*, processes: bool = False) -> dict[str, Any]:
    """What the rewards carry from step to step, part of TrainState; processes: of a bonus, too."""
    more = {"process": process.fresh()} if processes else {}
    return {"normaliser": normalise.fresh(), "adaptive": adaptive.fresh(), **more}


def join(
    settings: RewardSettings,
    state: Mapping[str, Any],
    terms: Mapping[str, jax.Array],
    teacher: TeacherScores | None,
    mask_BR: jax.Array,
    ended_B: jax.Array,
    *,
    dense: bool,
    samples: int,
    penalty_B: jax.Array | None = None,
    student_logp_BR: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Joined:
    """All terms, normalised, weighted and summed.

    Args:
        settings, state: of the rewards; as fresh_state has it.
        terms: of the host, {name: f32 [B]} (NaN: not applicable).
        teacher: its scores, or None where the intrinsic reward has no weight or is in the loss.
        mask_BR: f32, 1 on the response tokens that the model drew; outputs are gaps.
        ended_B: bool, whether the completion ended with EOS.
        dense: a reward a token (PPO): each gets its share of the intrinsic one, the last one all
            of the others.
        samples: G adjacent completions of a prompt.
        penalty_B: f32, added with weight 1 that never adapts, or None.
        student_logp_BR: log π_S of the tokens under the distribution that they were drawn from,
            f32; read with student_weight.
        key: of the step, for control=permuted.
    """
    token = settings.credit == "token" and teacher is not None
    intrinsic, raw_B = jnp.zeros_like(mask_BR), jnp.zeros_like(mask_BR[:, 0])
    shown = dict(terms)
    if teacher is not None:
        intrinsic = intrinsic_BR(settings, teacher, mask_BR, ended_B, student_logp_BR)
        intrinsic, raw_B = _controlled(
            settings, intrinsic, mask_BR, samples, tokens=dense or token,
            centred=not dense and (not token or settings.baseline_of_tokens != "none"), key=key,
        )  # fmt: skip
        shown["intrinsic"] = raw_B
    state = dict(state)
    weights, state["adaptive"] = _weights(settings, state["adaptive"], shown, samples)
    paid = {name: (weights[name], value) for name, value in terms.items()}
    sparse_B = weighted_sum(paid)
    if penalty_B is not None:
        sparse_B = sparse_B + penalty_B
        shown = {**shown, "overlong": penalty_B}
        paid["overlong"] = (1.0, penalty_B)
    reward_BR, token_BR, figures = None, None, dict[str, jax.Array]()
    if dense:
        tokens_BR, state["normaliser"] = normalised(
            settings, state["normaliser"], intrinsic, mask_BR, sequences=False
        )
        reward_BR = weights["intrinsic"] * share_BR(settings, tokens_BR, mask_BR)
        reward_BR = reward_BR + on_last_token(sparse_B, mask_BR)
        compared_B = reward_B = masked_sum(reward_BR, mask_BR, axis=1)
    elif token:
        made_BR, figures = token_credit.unscaled(settings, intrinsic, mask_BR, samples)
        scaled_BR, state["normaliser"] = normalised(
            settings, state["normaliser"], made_BR, mask_BR, sequences=False
        )
        figures |= token_credit.scaled_figures(settings, weights["intrinsic"], scaled_BR, mask_BR)
        token_BR, compared_B = weights["intrinsic"] * scaled_BR, sparse_B
        reward_B = sparse_B + masked_mean(token_BR, mask_BR, axis=1)
    elif settings.exact:
        token_BR, compared_B, reward_B = jnp.zeros_like(mask_BR), sparse_B, sparse_B
    else:
        scaled_B, state["normaliser"] = normalised(
            settings, state["normaliser"], raw_B, jnp.ones_like(raw_B), sequences=True
        )
        if teacher is not None:
            paid["intrinsic"] = (weights["intrinsic"], scaled_B)
        compared_B = reward_B = sparse_B + weights["intrinsic"] * scaled_B
    metrics = {"reward": jnp.mean(reward_B), **figures}
    metrics |= _figures(settings, weights, shown)
    if teacher is not None:
        metrics |= _teacher_figures(settings, state["normaliser"], teacher, mask_BR, ended_B)
    return Joined(reward_B, compared_B, reward_BR, token_BR, paid, raw_B, state, metrics)


def _controlled(
    settings: RewardSettings, intrinsic: jax.Array, mask_BR: jax.Array, samples: int, *,
    tokens: bool, centred: bool, key: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """(token rewards, their mean or sum [B]) under `control`.

    tokens: the rewards of tokens are paid, not those of sequences. centred: the group's mean, or
    the others', is subtracted, so that a sample may get its own.
    """
    if settings.control == "none":
        return intrinsic, sequence_B(settings, intrinsic, mask_BR)
    groups = len(mask_BR) // samples
    source_PG = permuted.sources(needed(key, "key"), groups, samples, own=centred)
    if tokens:
        intrinsic = permuted.tokens(intrinsic, mask_BR, source_PG)
        return intrinsic, sequence_B(settings, intrinsic, mask_BR)
    raw_B = sequence_B(settings, intrinsic, mask_BR)
    return intrinsic, permuted.sequences(raw_B, source_PG)


def _figures(
    settings: RewardSettings, weights: Mapping[str, Any], shown: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    metrics = {}
    for name, value_B in shown.items():
        metrics[f"rewards/{name}/mean"] = jnp.nanmean(value_B)
        metrics[f"rewards/{name}/std"] = jnp.nanstd(value_B)
        if settings.adaptive and name in weights:
            metrics[f"rewards/{name}/weight"] = jnp.asarray(weights[name], jnp.float32)
    return metrics


def _teacher_figures(
    settings: RewardSettings,
    state: normalise.State,
    teacher: TeacherScores,
    mask_BR: jax.Array,
    ended_B: jax.Array,
) -> dict[str, jax.Array]:
    # At the soft temperature α, whatever the form: π_T = exp((Q − V)/α).
    mass_BR = jnp.exp((teacher.q_BR - teacher.value_BR) / settings.alpha)
    # The last token that the model drew is EOS where it ended; NaN, recorded as null, for none.
    end_BR = on_last_token(jnp.where(ended_B, 1.0, 0.0), mask_BR)
    ends = jnp.sum(end_BR)
    at_end = masked_sum(mass_BR, end_BR) / jnp.maximum(ends, 1.0)
    metrics = {
        "teacher/mass": masked_mean(mass_BR, mask_BR),
        "teacher/mass_at_end": jnp.where(ends > 0, at_end, jnp.nan),
    }
    if settings.normaliser != "none":
        centre, spread = _centre_and_spread(settings, state)
        metrics |= {"rewards/intrinsic/centre": centre, "rewards/intrinsic/scale": spread}
    return metrics


def _weights(
    settings: RewardSettings, state: Any, shown: Mapping[str, jax.Array], samples: int
) -> tuple[dict[str, Any], Any]:
    """(weight of each term, state of the adaptive weights)."""
    weights: dict[str, Any] = dict(settings.weights)
    if not settings.adaptive:
        return weights, state
    # Right and wrong as 1 and 0: what they pay is no matter of the correlation.
    middle = (settings.right + settings.wrong) / 2
    correct_B = shown["correctness"]
    right_B = jnp.where(jnp.isnan(correct_B), correct_B, correct_B > middle)
    there = [name for name in adaptive.ADAPTS if name in shown]
    values = {name: shown[name].reshape(-1, samples) for name in there}
    state = adaptive.update(state, values, right_B.reshape(-1, samples), settings.momentum)
    for name, factor in adaptive.multipliers(state).items():
        weights[name] = weights[name] * factor
    return weights, state


def intrinsic_BR(
    settings: RewardSettings,
    teacher: TeacherScores,
    mask_BR: jax.Array,
    ended_B: jax.Array,
    student_logp_BR: jax.Array | None = None,
) -> jax.Array:
    """The teacher's reward of each response token, unscaled; 0 under the mask's zeros.

    A truncated answer is not terminal: in raw form its last token is bootstrapped with the value
    of the state after it; after EOS the value is 0. With student_weight s the reward is less
    s·α·log π_S.
    """
    reward_BR = intrinsic_reward(
        teacher.q_BR,
        teacher.value_BR,
        mask_BR,
        gamma=settings.gamma,
        bootstrap_B=jnp.where(ended_B, 0.0, teacher.end_value_B),
        canonical=settings.form == "canonical",
    )
    if not settings.student_weight:
        return reward_BR
    student_BR = settings.alpha * needed(student_logp_BR, "student_logp_BR")
    return log_ratio_reward(reward_BR, student_BR, mask_BR, student_weight=settings.student_weight)


def sequence_B(settings: RewardSettings, intrinsic: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """A sequence's intrinsic reward: mean or sum over its tokens."""
    total = masked_sum(intrinsic, mask_BR, axis=1)
    if settings.sequence == "sum":
        return total
    return total / jnp.maximum(jnp.sum(mask_BR, axis=1), 1.0)


def share_BR(settings: RewardSettings, intrinsic: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """Each token's share of a sequence's intrinsic reward: row sums are `sequence_B`.

    A sum of log-probabilities falls with every token: it pays for ending early, and after some
    hundred tokens no verified answer outweighs it.
    """
    if settings.sequence == "sum":
        return intrinsic
    return intrinsic / jnp.maximum(jnp.sum(mask_BR, axis=1, keepdims=True), 1.0)


def normalised(
    settings: RewardSettings,
    state: normalise.State,
    x: jax.Array,
    mask: jax.Array,
    *,
    sequences: bool,
) -> tuple[jax.Array, normalise.State]:
    """The reward divided by its running spread (this batch included) and clipped.

    x are rewards of sequences [B], which are centred too, or of tokens [B, R], which never are;
    the mask is f32 of the same shape.
    """
    if settings.normaliser == "none":
        return x, state
    state = normalise.update(settings.normaliser, state, x, mask, settings.momentum)
    centre, spread = _centre_and_spread(settings, state)
    x = (x - centre if sequences else x) / spread
    return (jnp.clip(x, -settings.clip, settings.clip) if settings.clip else x), state


def _centre_and_spread(
    settings: RewardSettings, state: normalise.State
) -> tuple[jax.Array, jax.Array]:
    """Of the running statistics; with student_weight at least _LEAST_SPREAD."""
    centre, spread = normalise.centre_and_spread(settings.normaliser, state)
    return centre, jnp.maximum(spread, _LEAST_SPREAD) if settings.student_weight else spread


def weighted_sum(terms: dict[str, tuple[float, jax.Array]]) -> jax.Array:
    """Σ weight·term over the terms that apply; NaN in a term means not applicable there."""
    total = jnp.zeros(())
    for weight, value in terms.values():
        total = total + jnp.where(jnp.isnan(value), 0.0, weight * value)
    return total


def on_last_token(value_B: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """[B,R] with each row's value on the last token that the mask keeps, 0 elsewhere (NaN counts
    as 0)."""
    step = jnp.arange(mask_BR.shape[1])[None, :]
    last = jnp.max(jnp.where(mask_BR > 0, step, -1), axis=1, keepdims=True)
    # Only NaN: an infinite reward must stay one, so that the update that it reaches is skipped.
    applies_B = jnp.where(jnp.isnan(value_B), 0.0, value_B)
    return jnp.where(step == last, applies_B[:, None], 0.0)


def needed(array: Any | None, name: str) -> Any:
    """The array; ValueError where the settings need one that was not given."""
    if array is None:
        raise ValueError(f"{name} is None; the settings of the rewards need it")
    return array
