"""The losses of process reward models.

`step_labels`: cross-entropy at the steps' ends, over labelled steps. `outcomes`: of an implicit
model, from right and wrong solutions alone.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_sum
from distill_jax.kernels import process_reward
from distill_jax.models import process_head
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import response_scores
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, TotalsFn

# The head's place in the trainable tree, and in checkpoints.
HEAD = "score"


class Totals(NamedTuple):
    """Sums over the whole batch, f32 []: weights; numbers of labelled, right and wrong steps, or
    solutions."""

    weight: jax.Array
    labelled: jax.Array
    right: jax.Array
    wrong: jax.Array


@functools.lru_cache(maxsize=32)
def step_labels(model: QwenModel) -> tuple[LossFn, TotalsFn]:
    """Cross-entropy of the steps' labels: its sum over all rows / the weight of labelled steps.

    The batch holds tokens_BT int32; end_BS int32, the steps' ends; label_BS f32 in [0, 1];
    weight_BS f32, 0 where a step is not labelled. The head is `trainable["score"]`; only the hidden
    states at the steps' ends reach it.

    Metrics: loss_minus_floor (the loss less the labels' own entropy, which no model can beat),
    accuracy, and balanced_accuracy, the mean over the classes that occur. Labels of 1/2 or more
    count as right.
    """

    def totals(batch: Any) -> Totals:
        return _totals(batch["label_BS"], batch["weight_BS"])

    def loss(trainable: Any, frozen: Any, batch: Any, sums: Totals, key: jax.Array):
        weight_BS, label_BS = batch["weight_BS"], batch["label_BS"]
        hidden_BTD = model.hidden(join(trainable, frozen), batch["tokens_BT"], dropout_key=key)
        state_BSD = process_reward.gather_steps(hidden_BTD, batch["end_BS"])
        logit_BSC = process_head.apply(trainable[HEAD], state_BSD)
        loss_BS = process_reward.step_cross_entropy(logit_BSC, label_BS, weight_BS)
        floor_BS = process_reward.label_entropy(label_BS, weight_BS)
        total = jnp.maximum(sums.weight, 1e-6)
        value = jnp.sum(weight_BS * loss_BS) / total
        floor = jnp.sum(weight_BS * floor_BS) / total
        said_BS = logit_BSC[..., 1] > logit_BSC[..., 0]
        accuracy = _accuracy(said_BS, label_BS, weight_BS, sums)
        metrics = {"loss_minus_floor": value - floor, **accuracy}
        return value, jax.lax.stop_gradient(metrics)

    return loss, totals


@functools.lru_cache(maxsize=32)
def outcomes(model: QwenModel, beta: float, vocab: int) -> tuple[LossFn, TotalsFn]:
    """BCE with logits of (β·Σ_t log π(y_t)/π_ref(y_t), right): its sum / the solutions' weight.

    The batch holds tokens_BT, prompt_len_B, targets_BR, loss_mask_BR of prompts and solutions;
    reference_B f32, Σ_t log π_ref(y_t); label_B f32, 1 right, 0 wrong; weight_B f32. LoRA dropout
    is off, so that the first log-ratio is 0. Logits of the vocabulary are made in chunks.

    Metrics: accuracy, and balanced_accuracy, the mean over the classes that occur.
    """

    def totals(batch: Any) -> Totals:
        return _totals(batch["label_B"], batch["weight_B"])

    def loss(trainable: Any, frozen: Any, batch: Any, sums: Totals, key: jax.Array):
        del key
        names = ("tokens_BT", "prompt_len_B", "targets_BR")
        params = join(trainable, frozen)
        scores = response_scores(model, params, *(batch[n] for n in names), vocab=vocab)
        logp_B = masked_sum(scores.logp_BR, batch["loss_mask_BR"], axis=1)
        logit_B = process_reward.implicit_reward(logp_B, batch["reference_B"], beta=beta)
        label_B, weight_B = batch["label_B"], batch["weight_B"]
        loss_B = process_reward.outcome_cross_entropy(logit_B, label_B)
        value = jnp.sum(weight_B * loss_B) / jnp.maximum(sums.weight, 1e-6)
        accuracy = _accuracy(logit_B > 0, label_B, weight_B, sums)
        return value, jax.lax.stop_gradient(accuracy)

    return loss, totals


def _totals(label: jax.Array, weight: jax.Array) -> Totals:
    right, labelled = jnp.sum((weight > 0) & (label >= 0.5)), jnp.sum(weight > 0)
    sums = (jnp.sum(weight), labelled, right, labelled - right)
    return Totals(*(jnp.asarray(x, jnp.float32) for x in sums))


def _accuracy(
    said: jax.Array, label: jax.Array, weight: jax.Array, sums: Totals
) -> dict[str, jax.Array]:
    right = label >= 0.5
    hit = (weight > 0) & (said == right)
    of_right = jnp.sum(hit & right) / jnp.maximum(sums.right, 1)
    of_wrong = jnp.sum(hit & ~right) / jnp.maximum(sums.wrong, 1)
    classes = jnp.sign(sums.right) + jnp.sign(sums.wrong)
    return {
        "accuracy": jnp.sum(hit) / jnp.maximum(sums.labelled, 1),
        "balanced_accuracy": (of_right + of_wrong) / jnp.maximum(classes, 1),
    }
