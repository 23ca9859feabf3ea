"""Log-probabilities of given tokens, read in one pass over each row; few shapes are compiled."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.batching import filled
from distill_jax.data.batching import bucket
from distill_jax.models.head.scores import head_scores
from distill_jax.models.head.top_k import head_top_k
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.sampling import draw_rows
from distill_jax.rollout.weights import head_logits, head_rows
from distill_jax.serving.slots import Decoding, row_key, widths

# Rows of a pass over several requests; one alone is read alone.
_ROWS = 8


class Scores(NamedTuple):
    """Of T tokens: log-probabilities of all but the first; the most probable tokens after each
    of the T, ids and log-probabilities, or none; the token that would be drawn next."""

    logp: list[float]
    top_ids: list[list[int]]
    top_logp: list[list[float]]
    next_token: int
    next_logp: float


class Reader:
    """Reads rows of tokens.

    Args:
        model, weights: as `Slots` takes them.
        longest: tokens of a row.
        top: most probable tokens that are listed where they are asked for.
    """

    def __init__(self, model: QwenModel, weights: Any, *, longest: int, top: int):
        vocab = int(weights["vocab"])
        self.weights, self.widths, self.rows = weights, widths(longest), _ROWS
        self._read = jax.jit(
            functools.partial(_read, model, vocab, min(top, vocab)), static_argnums=0
        )

    def read(
        self, rows: Sequence[Sequence[int]], hows: Sequence[Decoding], *, tops: bool
    ) -> list[Scores]:
        """Scores of at most `self.rows` rows.

        Raises:
            DataError: a row longer than `longest`.
        """
        width = bucket(max(map(len, rows)), self.widths)
        index = filled(range(len(rows)), 1 if len(rows) == 1 else self.rows)
        tokens_BT = np.zeros((len(index), width), np.int32)
        for place, row in enumerate(index):
            tokens_BT[place, : len(rows[row])] = rows[row]
        chosen = [hows[row] for row in index]
        settings = {
            "temperature_B": np.array([one.temperature for one in chosen], np.float32),
            "top_p_B": np.array([one.top_p for one in chosen], np.float32),
            "top_k_B": np.array([one.top_k for one in chosen], np.int32),
        }
        length_B = np.array([len(rows[row]) for row in index], np.int32)
        keys_B2 = np.stack([row_key(one) for one in chosen])
        out = self._read(tops, self.weights, tokens_BT, length_B, keys_B2, settings)
        logp_BT, ids_BTK, top_BTK, token_B, token_logp_B = map(np.asarray, out)
        return [
            Scores(
                logp_BT[i, : len(row) - 1].tolist(),
                ids_BTK[i, : len(row)].tolist() if tops else [],
                top_BTK[i, : len(row)].tolist() if tops else [],
                int(token_B[i]),
                float(token_logp_B[i]),
            )
            for i, row in enumerate(rows)
        ]


def _read(
    model: QwenModel, vocab: int, top: int, tops: bool, weights: Any,
    tokens_BT, length_B, keys_B2, settings,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """logp_BT of each token's successor; its top K or empty arrays; what is drawn at the end."""
    B, T = tokens_BT.shape
    hidden_BTD, head_VD = model.states(weights["body"], tokens_BT), head_rows(weights)
    next_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
    hidden_ND = hidden_BTD.reshape(B * T, -1)
    scores = head_scores(hidden_ND, head_VD, next_BT.reshape(-1), valid_vocab=vocab)
    logp_BT = scores.logp_N.reshape(B, T)
    ids_BTK, top_BTK = jnp.zeros((B, T, 0), jnp.int32), jnp.zeros((B, T, 0))
    if tops:
        found = head_top_k(hidden_ND, head_VD, top, valid_vocab=vocab)
        ids_BTK, top_BTK = (x.reshape(B, T, -1) for x in found[:2])
    last_BD = hidden_BTD[jnp.arange(B), length_B - 1]
    logits_BV = head_logits(weights, last_BD).reshape(B, -1)
    uniform_B = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 0)))(
        jax.random.wrap_key_data(keys_B2)
    )
    token_B, token_logp_B = draw_rows(logits_BV, uniform_B, **settings)
    return logp_BT, ids_BTK, top_BTK, token_B, token_logp_B
