"""A reward model's scores of steps as a bonus for right answers; signs of reward hacking.

Only right answers get a bonus, and it never moves the advantage of a right answer below that of a
wrong one (kernels/bonus.py). Policies trained on a reward model alone collapse within hundreds of
steps (PURE, arXiv 2504.15275).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError, RewardHackingError
from distill_jax.core.settings import setting
from distill_jax.kernels import bonus as kernels
from distill_jax.kernels.process_reward import min_form
from distill_jax.reasoning import steps
from distill_jax.rewards.adaptive import correlation

FORMS = ("end", "min_form")
# process/high_wrong is the share of answers that are wrong and score above this.
HIGH = 0.8
_MOMENTUM = 0.9
# Shapes of steps are multiples of this, so that few programs are compiled.
_MULTIPLE = 8


@dataclass(frozen=True)
class ProcessSettings:
    """A process reward model's bonus for right answers."""

    reward_model: str = setting(
        "", "Reward model: a stage that makes one, or a directory; empty: none.", ref="reward_model"
    )
    weight: float = setting(
        0.2, "Weight of the bonus that is added to the advantage.", above=0.0, high=1.0
    )
    form: str = setting(
        "end",
        "end: one bonus for the answer; min_form: credit for each step, nearly all on the worst.",
        choices=FORMS,
    )
    temperature: float = setting(0.1, "T of min_form.", above=0.0)
    least_correlation: float = setting(
        -1.0,
        "Stop when the running correlation of scores with right answers is below; -1 is off.",
        low=-1.0,
        high=1.0,
    )
    least_steps: float = setting(
        0.5,
        "Stop when answers have fewer than this share of the first batch's steps; 0 is off.",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if not self.reward_model and changed:
            raise ConfigError(
                f"process.{changed[0]} without process.reward_model", fix="set process.reward_model"
            )
        if self.form == "end" and self.temperature != 0.1:
            raise ConfigError(
                f"process.temperature={self.temperature} with process.form=end",
                wanted="process.form=min_form",
            )


class StepScorer(Protocol):
    """What scores the steps of completions: `inference.process_scorer.ProcessScorer`."""

    how: steps.Format

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """P(right) of each step; NaN where a row had no room for it."""

    def aggregate(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """One score a completion, f32 [N]; NaN without a scored step."""


@flax.struct.dataclass
class StepScores:
    """Scores of B completions, S steps at most.

    Attributes:
        score_BS: f32, 0 where there is no scored step.
        mask_BS: f32, 1 on scored steps.
        answer_B: f32, the aggregated score; NaN where no step was scored.
        step_BR: int32, the step that a token belongs to.
    """

    score_BS: Any
    mask_BS: Any
    answer_B: Any
    step_BR: Any


def score(
    scorer: StepScorer,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    mask_BR: np.ndarray,
) -> StepScores:
    """Scores of completions, given as the token ids that the model drew.

    mask_BR: 1 at the places of each row's tokens.
    """
    found = scorer.score(prompts, tokens)
    S = round_up(max((len(row) for row in found), default=1) or 1, _MULTIPLE)
    score_BS = np.full((len(found), S), np.nan, np.float32)
    step_BR = np.zeros(mask_BR.shape, np.int32)
    for row, (values, ids) in enumerate(zip(found, tokens, strict=True)):
        score_BS[row, : len(values)] = values
        split = steps.split_tokens(tokenizer, ids, scorer.how)
        step_BR[row, mask_BR[row] > 0] = steps.step_of_tokens(split, len(ids))
    mask_BS = np.isfinite(score_BS)
    answer_B = np.asarray(scorer.aggregate(found), np.float32)
    return StepScores(
        np.where(mask_BS, score_BS, 0).astype(np.float32),
        mask_BS.astype(np.float32),
        answer_B,
        np.minimum(step_BR, S - 1),
    )


def fresh() -> dict[str, jax.Array]:
    """The bonus' state at the first step, part of TrainState: f32 [] each.

    correlation is an exponentially weighted sum and weight the sum of its weights, so that
    correlation / weight is the running mean. first_steps is the mean number of steps of an answer
    in the first batch, steps its running mean.
    """
    names = ("correlation", "weight", "first_steps", "steps")
    return {name: jnp.zeros((), jnp.float32) for name in names}


def bonus(
    settings: ProcessSettings,
    state: dict[str, jax.Array],
    scores: StepScores,
    right_B: jax.Array,
    decided_B: jax.Array,
    mask_BR: jax.Array,
    samples: int,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """The weighted bonus, centred over the right answers; `bonuses.add` adds it, bounded.

    Args:
        settings, state: of the bonus.
        scores: of the rollout.
        right_B, decided_B: bool.
        mask_BR: 1 on response tokens.
        samples: G; B = P·G.

    Returns:
        (bonus_BR f32, state, metrics).
    """
    scored_B = jnp.isfinite(scores.answer_B)
    if settings.form == "end":
        value_B = jnp.clip(jnp.where(scored_B, scores.answer_B, 0.0), 0.0, 1.0)
        value_BR = jnp.broadcast_to(value_B[:, None], mask_BR.shape)
    else:
        reward_BS = 2 * scores.score_BS - 1  # p₁ − p₀
        shaped_BS = min_form(reward_BS, scores.mask_BS, temperature=settings.temperature)
        value_BR = kernels.return_to_go(shaped_BS, scores.step_BR)
    centred_BR = kernels.centred_over_right(value_BR, right_B & scored_B, mask_BR, samples)
    state, figures = _watch(state, scores, right_B, decided_B, samples)
    tokens = jnp.sum(mask_BR) / jnp.maximum(jnp.sum(scores.mask_BS), 1.0)
    figures["process/tokens_per_step"] = tokens
    return settings.weight * centred_BR, state, figures


def _watch(
    state: dict[str, jax.Array],
    scores: StepScores,
    right_B: jax.Array,
    decided_B: jax.Array,
    samples: int,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """(state, metrics) after this batch: running correlation and number of steps."""
    scored_B = jnp.isfinite(scores.answer_B)
    wrong_B = decided_B & ~right_B & scored_B
    right = jnp.where(decided_B, right_B.astype(jnp.float32), jnp.nan)
    gain, there = correlation(scores.answer_B.reshape(-1, samples), right.reshape(-1, samples))
    share = jnp.where(there, 1 - _MOMENTUM, 0.0)
    now = jnp.mean(jnp.sum(scores.mask_BS, axis=1))
    begun = state["first_steps"] > 0
    running = _MOMENTUM * state["steps"] + (1 - _MOMENTUM) * now
    new = {
        "correlation": (1 - share) * state["correlation"] + share * gain,
        "weight": (1 - share) * state["weight"] + share,
        "first_steps": jnp.where(begun, state["first_steps"], now),
        "steps": jnp.where(begun, running, now),
    }

    def mean(value_B: jax.Array, where_B: jax.Array) -> jax.Array:
        return jnp.mean(value_B, where=where_B)  # NaN where there is none

    return new, {
        "process/score_right": mean(scores.answer_B, right_B & scored_B),
        "process/score_wrong": mean(scores.answer_B, wrong_B),
        "process/high_wrong": jnp.mean((wrong_B & (scores.answer_B > HIGH)).astype(jnp.float32)),
        "process/correlation": new["correlation"] / jnp.maximum(new["weight"], 1e-12),
        "process/steps": now,
    }


def refuse_hacking(settings: ProcessSettings, state: dict[str, Any]) -> None:
    """Stops a run whose running figures are beyond the settings' bounds; state: on the host.

    Raises:
        RewardHackingError: naming the sign and its bound.
    """
    weight = float(state["weight"])
    running = float(state["correlation"]) / weight if weight > 0 else 0.0
    # Not before about ten batches with a correlation: the mean of few says little.
    if weight > 1 - _MOMENTUM**10 and running < settings.least_correlation:
        raise RewardHackingError(
            f"the reward model's scores correlate with right answers by {running:.2f}",
            wanted=f"process.least_correlation={settings.least_correlation} or more",
            fix="train the reward model again on this policy's answers, or lower process.weight",
        )
    first, now = float(state["first_steps"]), float(state["steps"])
    if now < settings.least_steps * first:
        raise RewardHackingError(
            f"answers have {now:.1f} steps on average, {first:.1f} at first",
            wanted=f"at least process.least_steps={settings.least_steps} of that",
            fix="lower process.weight; look at completions.jsonl for answers that skip their steps",
        )
