"""A model's k most probable tokens at each response position: the teacher's for distillation
offline, any model's for exported answers.

Two k-vectors and one number for each token; no array has batch, time and vocabulary axes.
`CachedTeacher` stores them, as it stores (Q, V).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.kernels.logprob import gather_response
from distill_jax.models.head.listed import TopK
from distill_jax.models.head.top_k import head_top_k
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import in_parts

# Arrays of a batch that a scorer reads.
NAMES = ("tokens_BT", "prompt_len_B", "targets_BR")


class TopKScorer:
    """Top-k of the distribution that each token of a given response is drawn from.

    Args:
        model, params: e.g. the teacher and its weights, on the mesh.
        mesh: rows are split over data and fsdp.
        k: tokens kept at each position.
        temperature: of distillation, T; divides the logits.
        vocab: tokens that exist; logit rows beyond it never enter.
    """

    def __init__(
        self, model: QwenModel, params: Any, mesh: Mesh, *,
        k: int, vocab: int, temperature: float = 1.0,
    ):  # fmt: skip
        self.model, self.params, self.k = model, params, k
        self.temperature, self.vocab, self.mesh = temperature, vocab, mesh
        self.kind = f"top_k:{k}"
        self.alphas: tuple[float, ...] = (float(temperature),)
        self._score = _scoring(model, k, float(temperature), vocab, mesh)

    def score(self, batch: dict[str, Any]) -> TopK:
        """The top k at each position of the batch's responses: axes [B, R].

        Args:
            batch: tokens_BT int32 (prompt and response without a gap, right padded),
                prompt_len_B int32, and targets_BR int32, of which only the width R is used. The
                result beyond a response's length is meaningless.

        Raises:
            ConfigError: an impossible k, vocabulary or temperature.
        """
        return self._score(self.params, {name: batch[name] for name in NAMES})


@functools.lru_cache(maxsize=32)
def _scoring(
    model: QwenModel, k: int, temperature: float, vocab: int, mesh: Mesh
) -> Callable[..., TopK]:
    """One program of equal models."""

    def of_rows(params: Any, batch: dict[str, jax.Array]) -> TopK:
        B, R = batch["targets_BR"].shape
        hidden_BTD = model.hidden(params, batch["tokens_BT"])
        hidden_ND = gather_response(hidden_BTD, batch["prompt_len_B"], R).reshape(B * R, -1)
        how: dict[str, Any] = {"valid_vocab": vocab, "temperature": temperature, "mesh": mesh}
        top = head_top_k(hidden_ND, model.whole_head_VD(params), k, **how)
        return TopK(*(x.reshape(B, R, *x.shape[1:]) for x in top))

    def score(params: Any, batch: dict[str, jax.Array]) -> TopK:
        T = batch["tokens_BT"].shape[1]
        return in_parts(functools.partial(of_rows, params), batch, T, model.shards)

    return jax.jit(score, out_shardings=sharding.batch_sharding(mesh))
