"""The loss of a process reward model: cross-entropy at the steps' ends, over labelled steps."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.kernels import process_reward
from distill_jax.models import process_head
from distill_jax.models.qwen import QwenModel
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, TotalsFn

# The head's place in the trainable tree, and in checkpoints.
HEAD = "score"


class Totals(NamedTuple):
    """Sums over the whole batch, f32 []: weights, labelled steps, and those right and wrong."""

    weight: jax.Array
    steps: jax.Array
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
        there_BS = batch["weight_BS"] > 0
        right = jnp.sum(there_BS & (batch["label_BS"] >= 0.5))
        steps = jnp.sum(there_BS)
        sums = (jnp.sum(batch["weight_BS"]), steps, right, steps - right)
        return Totals(*(jnp.asarray(x, jnp.float32) for x in sums))

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
        metrics = {"loss_minus_floor": value - floor, **_accuracy(logit_BSC, batch, sums)}
        return value, jax.lax.stop_gradient(metrics)

    return loss, totals


def _accuracy(logit_BSC: jax.Array, batch: Any, sums: Totals) -> dict[str, jax.Array]:
    there_BS, right_BS = batch["weight_BS"] > 0, batch["label_BS"] >= 0.5
    hit_BS = there_BS & ((logit_BSC[..., 1] > logit_BSC[..., 0]) == right_BS)
    hits = jnp.sum(hit_BS)
    of_right = jnp.sum(hit_BS & right_BS) / jnp.maximum(sums.right, 1)
    of_wrong = jnp.sum(hit_BS & ~right_BS) / jnp.maximum(sums.wrong, 1)
    classes = jnp.sign(sums.right) + jnp.sign(sums.wrong)
    return {
        "accuracy": hits / jnp.maximum(sums.steps, 1),
        "balanced_accuracy": (of_right + of_wrong) / jnp.maximum(classes, 1),
    }
