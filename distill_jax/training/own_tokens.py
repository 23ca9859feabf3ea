"""What teacher and student say of the student's own tokens: figures of a distillation step."""

from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean, masked_sum
from distill_jax.models.head.listed import TopK
from distill_jax.models.head.top_k import head_top_k

# Tokens of a microbatch at which the student's top k is compared with the teacher's: enough for a
# mean, and their logits cost little.
OVERLAP_TOKENS = 512


def stored_top_k(batch: Any) -> TopK:
    """The teacher's stored top k of the response tokens: axes [B·R]."""
    stored = (batch[f"teacher_{name}"] for name in TopK._fields)
    return TopK(*(x.reshape(-1, *x.shape[2:]) for x in stored))


def listed_mass(top: TopK, targets_N: jax.Array) -> jax.Array:
    """The teacher's probability of each target, float32 [N]; 0 where its top k lacks it."""
    hit_NK = top.ids_XK == targets_N[:, None]
    return jnp.sum(jnp.where(hit_NK, jnp.exp(top.logp_XK), 0.0), axis=1)


def overlap(
    hidden_ND: jax.Array, head_VD: jax.Array, top: TopK, mask_N: jax.Array, vocab: int
) -> tuple[jax.Array, jax.Array]:
    """(Σ |top-k of the student ∩ top-k of the teacher| / k over some tokens, their number).

    The quotient is verl's `overlap_ratio`, in 0 to 1. Every n-th token is looked at, n odd, so that
    there are at most OVERLAP_TOKENS; masked ones count for nothing.

    Args:
        hidden_ND, head_VD: the student's states that the tokens are drawn from, and head.
        top: the teacher's, axes [N].
        mask_N: float32.
        vocab: tokens that exist.
    """
    every = -(-hidden_ND.shape[0] // OVERLAP_TOKENS) | 1
    theirs_nK, k = top.ids_XK[::every], top.ids_XK.shape[1]
    ours_nK = head_top_k(hidden_ND[::every], head_VD, k, valid_vocab=vocab).ids_XK
    shared_n = jnp.sum(ours_nK[:, :, None] == theirs_nK[:, None, :], axis=(1, 2)) / k
    return masked_sum(shared_n, mask_N[::every]), jnp.sum(mask_N[::every])


def on_own_tokens(
    settings: Any,
    student: tuple[jax.Array, jax.Array],
    batch: Any,
    logp_NC: jax.Array,
    tokens: jax.Array,
    vocab: int,
) -> dict[str, jax.Array]:
    """Figures of a microbatch, which add up; they have no part in the loss.

    "teacher/mass": the mean of the teacher's probability of each token, at temperature 1 (from a
    top k, which has temperature T, with T = 1 alone, and 0 for tokens that it lacks). With place_BB
    in the batch "last_mass_B": that of each row's last token. With top_k "overlap_sum" and
    "overlap_tokens": see `overlap`.

    Args:
        settings: of the loss.
        student: hidden_ND and head_VD, states that the response tokens are drawn from, and head.
        batch: of the loss.
        logp_NC: one column, the teacher's log-probabilities at temperature 1; none with its top k.
        tokens: of the whole batch.
        vocab: tokens that exist.
    """
    mask_BR, figures = batch["loss_mask_BR"], dict[str, jax.Array]()
    mass_N = jnp.exp(logp_NC[:, 0]) if logp_NC.shape[1] else None
    if settings.top_k:
        top = stored_top_k(batch)
        found = overlap(*student, top, mask_BR.reshape(-1), vocab)
        figures["overlap_sum"], figures["overlap_tokens"] = found
        if settings.temperature == 1.0:
            mass_N = listed_mass(top, batch["targets_BR"].reshape(-1))
    if mass_N is not None:
        mass_BR = mass_N.reshape(mask_BR.shape)
        figures["teacher/mass"] = masked_sum(mass_BR, mask_BR) / tokens
        if "place_BB" in batch:
            last_B1 = jnp.maximum(batch["response_len_B"] - 1, 0)[:, None]
            mass_B = jnp.take_along_axis(mass_BR, last_B1, axis=1)[:, 0]
            figures["last_mass_B"] = placed(mass_B, batch)
    return figures


def of_examples(value_BR: jax.Array, mask_BR: jax.Array, batch: Any) -> jax.Array:
    """A microbatch's means over the tokens of each example of the whole batch, 0 elsewhere.

    Args:
        value_BR, mask_BR: float32.
        batch: place_BB, the identity, where each row is one example. Of packed rows place_BE, 1
            where a row holds an example, and example_BR, int32, the example of each token.
    """
    if "place_BE" not in batch:
        return placed(masked_mean(value_BR, mask_BR, axis=1), batch)
    place_BE = batch["place_BE"]
    of_BRE = batch["example_BR"][:, :, None] == jnp.arange(place_BE.shape[1])
    mean_BE = masked_mean(value_BR[:, :, None], mask_BR[:, :, None] * of_BRE, axis=1)
    return jnp.sum(place_BE * mean_BE, axis=0)


def placed(value_B: jax.Array, batch: Any) -> jax.Array:
    """A microbatch's values at their rows' places in the whole batch, 0 elsewhere."""
    # The default precision of accelerators would round them.
    return jnp.matmul(value_B, batch["place_BB"], precision=jax.lax.Precision.HIGHEST)
