"""A rollout made up for tests of losses and updates: 4 prompts × 2 samples on the tiny model."""

import functools

import jax
import numpy as np

from distill_jax.core import rng as rngs
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.batch import PolicyBatch, ScoredRollout
from distill_jax.training.step import make_update
from tests import tiny
from tests.tiny import VOCAB

TEMPERATURE = 0.8
PROMPT = np.array([3, 3, 1, 1, 2, 2, 4, 4], np.int32)
ANSWER = np.array([4, 2, 5, 3, 1, 5, 2, 4], np.int32)
ENDED = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)


@functools.partial(jax.jit, static_argnums=(0, 4))
def score(model, trainable, frozen, rollout, values):
    how = {"temperature": TEMPERATURE, "vocab": VOCAB, "values": values, "entropy": True}
    return losses.score_policy(model, trainable, frozen, rollout, **how)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _advantages(of, rollout, settings):
    return of(rollout, settings)[0]


def _rollout(rng):
    tokens_BT = rng.integers(1, VOCAB, (8, 9)).astype(np.int32)
    tokens_BT[np.arange(9)[None] >= (PROMPT + ANSWER)[:, None]] = 0
    mask_BR = (np.arange(5) < ANSWER[:, None]).astype(np.float32)
    # Tokens after the prompt; 0 beyond the row's end.
    longer_BT = np.pad(tokens_BT, ((0, 0), (0, 5)))
    return RolloutBatch(
        tokens_BT=tokens_BT,
        prompt_len_B=PROMPT,
        response_len_B=ANSWER,
        response_mask_BR=mask_BR,
        targets_BR=np.stack([row[p : p + 5] for row, p in zip(longer_BT, PROMPT, strict=True)]),
        ended_B=ENDED,
        behaviour_logp_BR=None,  # made below, from the scores
    )


def make(model, params, algorithm, settings, *, noise=0.2):
    """What the loss is given; old log-probabilities differ from the present ones by `noise`."""
    rng = np.random.default_rng(0)
    rollout = _rollout(rng)
    mask_BR = rollout.response_mask_BR
    reward_PG = rng.random((4, 2)).astype(np.float32)
    reward_BR = (rng.normal(size=(8, 5)) * mask_BR).astype(np.float32)
    trainable, frozen = states.split(params, "lora")
    if algorithm.uses_values:
        trainable = states.with_value_head(trainable, model.config.hidden_size)
    scored = score(model, trainable, frozen, rollout, algorithm.uses_values)
    logp_BR = np.asarray(scored.logp_BR)
    old_BR, ref_BR, behaviour_BR = (
        logp_BR + noise * rng.normal(size=(8, 5)).astype(np.float32) for _ in range(3)
    )
    with_rewards = ScoredRollout(
        response_mask_BR=mask_BR,
        loss_mask_BR=mask_BR,
        ended_B=ENDED,
        reward_PG=reward_PG,
        reward_BR=reward_BR,
        old_logp_BR=old_BR,
        ref_logp_BR=ref_BR,
        entropy_BR=scored.entropy_BR,
        value_BR=scored.value_BR,
        end_value_B=scored.end_value_B,
        terms=None,
    )
    batch = PolicyBatch(
        tokens_BT=rollout.tokens_BT,
        prompts_PS=None,
        prompt_len_B=PROMPT,
        targets_BR=rollout.targets_BR,
        loss_mask_BR=mask_BR,
        behaviour_logp_BR=behaviour_BR,
        old_logp_BR=old_BR,
        ref_logp_BR=ref_BR,
        advantages=_advantages(algorithm.advantages, with_rewards, settings),
    )
    return trainable, frozen, jax.tree.map(np.asarray, batch)


def to_rollout(batch):
    """The rollout that a batch of `make` was made from, for `losses.score_policy`."""
    return RolloutBatch(
        tokens_BT=batch.tokens_BT,
        prompt_len_B=batch.prompt_len_B,
        response_len_B=ANSWER,
        response_mask_BR=batch.loss_mask_BR,
        targets_BR=batch.targets_BR,
        ended_B=ENDED,
        behaviour_logp_BR=batch.behaviour_logp_BR,
    )


def make_sft(params):
    """The same rows as a batch of SFT."""
    rollout = _rollout(np.random.default_rng(0))
    names = ("tokens_BT", "prompt_len_B", "targets_BR")
    batch = {name: getattr(rollout, name) for name in names}
    return *states.split(params, "lora"), {**batch, "loss_mask_BR": rollout.response_mask_BR}


def settings_of(name, **changes):
    """Settings with everything on that a loss may have."""
    if ALGORITHMS[name].uses_values:
        return PPOSettings(**{"entropy_coef": 0.01, "value_coef": 0.5, **changes})
    every = {"beta": 0.05, "entropy_coef": 0.01, "top_entropy": 0.6, **changes}
    return GroupSettings(**every).at_length(6)


def updater(model, name, settings, trainable, *, accumulate=1, mesh=None, rate=1e-2):
    """A fresh state, its update function and its optimiser."""
    mesh = mesh or tiny.mesh()
    # SGD would show the gradient itself; Adam is what runs, with an eps that hides no difference.
    tx = optimizer.make(
        optimizer.OptimizerSettings(
            learning_rate=rate, schedule="constant", eps=1e-3, max_grad_norm=1e3
        ),
        10,
    )
    state, shardings = states.create(trainable, tx, rngs.run_key(0), mesh)
    loss, totals = losses.policy(
        model, ALGORITHMS[name], settings, temperature=TEMPERATURE, vocab=VOCAB
    )
    return state, make_update(loss, totals, tx, mesh, shardings, accumulate=accumulate)
