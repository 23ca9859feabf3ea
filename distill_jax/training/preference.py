"""The loss of preference training: pairs of a chosen and a rejected completion of one prompt."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_sum
from distill_jax.kernels.preference import PREFERENCES, Pairs, preference_loss
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import response_scores
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, Metrics, TotalsFn


class Objective(NamedTuple):
    """Which loss: see `kernels.preference.preference_loss`.

    Attributes:
        loss: a key of PREFERENCES.
        beta: β.
        label_smoothing: ε.
        target_margin: γ/β of simpo.
        sft_weight: weight of the cross-entropy of the chosen completions, a mean over their tokens.
    """

    loss: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    target_margin: float = 0.0
    sft_weight: float = 0.0


class Totals(NamedTuple):
    """Of a whole batch: number of pairs, tokens of the chosen completions."""

    pairs: jax.Array
    chosen_tokens: jax.Array


def sequence_logps(model: QwenModel, params: Any, batch: Any, *, vocab: int) -> jax.Array:
    """Σ_t log π(y_t) of both completions of each pair, EOS included: f32 [B, 2].

    Args:
        model, params: the policy or its reference; LoRA dropout is off.
        batch: tokens_BCT, prompt_len_BC, targets_BCR, loss_mask_BCR; C = 2: chosen, rejected.
        vocab: tokens that exist.
    """
    return _sequences(model, params, batch, vocab, hits=False)[0]


def _sequences(
    model: QwenModel, params: Any, batch: Any, vocab: int, *, hits: bool
) -> tuple[jax.Array, jax.Array | None]:
    """(Σ_t log π(y_t), tokens that are the most likely ones, if asked), f32 [B, 2]."""
    names = ("tokens_BCT", "prompt_len_BC", "targets_BCR", "loss_mask_BCR")
    # Both completions are rows of one batch; their logits are made in chunks of tokens.
    *rows, mask = (batch[n].reshape(-1, *batch[n].shape[2:]) for n in names)
    scores = response_scores(model, params, *rows, vocab=vocab, hits=hits)
    logp_BC = masked_sum(scores.logp_BR, mask, axis=1).reshape(-1, 2)
    if scores.hit_BR is None:
        return logp_BC, None
    return logp_BC, masked_sum(scores.hit_BR, mask, axis=1).reshape(-1, 2)


@functools.lru_cache(maxsize=32)
def preference(model: QwenModel, objective: Objective, vocab: int) -> tuple[LossFn, TotalsFn]:
    """The loss, a mean over the batch's pairs, and `sft_weight` times TRL's `sft`.

    The batch is that of `sequence_logps` with reference_BC, f32, the sums under the reference;
    without it where the loss has no reference.

    Metrics, means over pairs. TRL's names: rewards/chosen, rewards/rejected = β·Σ log π/π_ref,
    rewards/margins, rewards/accuracies (losses with a reference alone); logps/chosen and
    logps/rejected, sums over tokens; mean_token_accuracy, the share of the chosen completions'
    tokens that are the most likely ones. Further: margins/optimised, accuracies/optimised, of the
    margin that this loss raises; logps/chosen_per_token, a mean over the batch's chosen tokens,
    which falls where the loss lowers the chosen completions, too.
    """

    def totals(batch: Any) -> Totals:
        mask_BCR = batch["loss_mask_BCR"]
        return Totals(jnp.float32(mask_BCR.shape[0]), jnp.sum(mask_BCR[:, 0]))

    def loss(trainable: Any, frozen: Any, batch: Any, totals: Totals, key: jax.Array):
        del key
        params = join(trainable, frozen)
        logp_BC, hit_BC = _sequences(model, params, batch, vocab, hits=True)
        assert hit_BC is not None
        length_BC = jnp.sum(batch["loss_mask_BCR"], axis=2)
        reference_BC = batch.get("reference_BC", jnp.zeros_like(logp_BC))
        pairs = Pairs(*logp_BC.T, *reference_BC.T, *length_BC.T)
        loss_B, margin_B = preference_loss(
            pairs,
            objective.loss,
            beta=objective.beta,
            smoothing=objective.label_smoothing,
            target=objective.target_margin,
        )
        chosen = jnp.sum(pairs.chosen_B) / totals.chosen_tokens
        value = jnp.sum(loss_B) / totals.pairs - objective.sft_weight * chosen
        of_pairs = {
            "logps/chosen": pairs.chosen_B,
            "logps/rejected": pairs.rejected_B,
            "margins/optimised": margin_B,
            "accuracies/optimised": margin_B > 0,
        }
        if PREFERENCES[objective.loss].uses_reference:
            of_pairs |= _rewards(pairs, objective.beta)
        metrics = {name: jnp.sum(x_B) / totals.pairs for name, x_B in of_pairs.items()}
        metrics["logps/chosen_per_token"] = chosen
        metrics["mean_token_accuracy"] = jnp.sum(hit_BC[:, 0]) / totals.chosen_tokens
        return value, jax.lax.stop_gradient(metrics)

    return loss, totals


def _rewards(pairs: Pairs, beta: float) -> Metrics:
    """What TRL calls rewards: β times the sum of log-ratios, whatever the loss."""
    chosen_B = beta * (pairs.chosen_B - pairs.ref_chosen_B)
    rejected_B = beta * (pairs.rejected_B - pairs.ref_rejected_B)
    return {
        "rewards/chosen": chosen_B,
        "rewards/rejected": rejected_B,
        "rewards/margins": chosen_B - rejected_B,
        "rewards/accuracies": chosen_B > rejected_B,
    }
