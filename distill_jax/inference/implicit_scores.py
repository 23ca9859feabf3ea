"""Scores of an implicit reward model: log-ratios of two adapters of one language model.

The reward of a token is β·(log π(y_t) − log π_ref(y_t)), that of a step the sum over its tokens,
the step token included. Scoring takes a forward pass of the policy and one of the reference, over
all rows at once.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.inference.step_batches import (
    BATCH,
    TOKENS,
    in_batches,
    padded,
    refused_unless_finite,
)
from distill_jax.kernels.process_reward import implicit_reward
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import response_scores
from distill_jax.reasoning.steps import Encoded


def step_logps(
    model: QwenModel,
    params: Any,
    rows: Sequence[Encoded],
    *,
    vocab: int,
    mesh: Mesh,
    batch: int = BATCH,
) -> list[np.ndarray]:
    """Σ log π over the tokens of each step, float32 [S] a row.

    Args:
        model, params: policy or reference, {"base", "lora"} on the mesh.
        rows: encoded solutions; those without a step are not computed.
        vocab: size of the tokenizer's vocabulary.
        mesh: rows are split over it.
        batch: rows of a forward pass.
    """

    def arrays(chosen: Sequence[Encoded]) -> tuple[np.ndarray, ...]:
        starts_B = np.array([row.start for row in chosen], np.int32)
        targets_BR = padded([row.tokens[row.start :] for row in chosen], TOKENS)
        return padded([row.tokens for row in chosen], TOKENS), starts_B, targets_BR

    program = functools.partial(_token_logps, model, params, vocab=vocab)
    found = in_batches(rows, arrays, program, mesh=mesh, batch=batch)
    nothing = np.zeros(0, np.float32)
    return [_sums(found[i], row) if i in found else nothing for i, row in enumerate(rows)]


def _sums(logp_R: np.ndarray, row: Encoded) -> np.ndarray:
    """Sums over the steps of a row, computed in float64."""
    begins = [0, *(end + 1 - row.start for end in row.ends[:-1])]
    length = len(row.tokens) - row.start
    return np.add.reduceat(logp_R[:length].astype(np.float64), begins).astype(np.float32)


def probabilities(
    policy: Sequence[np.ndarray], reference: Sequence[np.ndarray], *, beta: float
) -> list[np.ndarray]:
    """σ(β·(Σ log π − Σ log π_ref)) of each step: 1/2 where policy and reference agree.

    Raises:
        NonFiniteError: a log-probability is not finite.
    """
    pairs = zip(policy, reference, strict=True)
    reward = [implicit_reward(one.astype(np.float64), ref, beta=beta) for one, ref in pairs]
    # σ(x) = (1 + tanh(x/2))/2 does not overflow.
    right = [(0.5 + 0.5 * np.tanh(0.5 * one)).astype(np.float32) for one in reward]
    return refused_unless_finite(right)


@functools.partial(jax.jit, static_argnums=0, static_argnames="vocab")
def _token_logps(
    model: QwenModel,
    params: Any,
    tokens_BT: jax.Array,
    start_B: jax.Array,
    targets_BR: jax.Array,
    *,
    vocab: int,
) -> jax.Array:
    return response_scores(model, params, tokens_BT, start_B, targets_BR, vocab=vocab).logp_BR
