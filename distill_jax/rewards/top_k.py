"""A model's k most probable tokens at each response position: the teacher's for distillation
offline, any model's for exported answers.

Two k-vectors and one number for each token; no array has batch, time and vocabulary axes.
`CachedTeacher` stores them, as it stores (Q, V).
"""

from typing import Any

import jax
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.kernels.logprob import gather_response
from distill_jax.models.head.top_k import TopK, head_top_k
from distill_jax.models.qwen import QwenModel


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
        self,
        model: QwenModel,
        params: Any,
        mesh: Mesh,
        *,
        k: int,
        vocab: int,
        temperature: float = 1.0,
    ):
        self.model, self.params, self.k = model, params, k
        self.temperature, self.vocab, self.mesh = temperature, vocab, mesh
        self.kind = f"top_k:{k}"
        self.alphas: tuple[float, ...] = (float(temperature),)
        self._score = jax.jit(self._score_fn, out_shardings=sharding.batch_sharding(mesh))

    def score(self, batch: dict[str, Any]) -> TopK:
        """The top k at each position of the batch's responses: axes [B, R].

        Args:
            batch: tokens_BT int32 (prompt and response without a gap, right padded),
                prompt_len_B int32, and targets_BR int32, of which only the width R is used. The
                result beyond a response's length is meaningless.

        Raises:
            ConfigError: an impossible k, vocabulary or temperature.
        """
        names = ("tokens_BT", "prompt_len_B", "targets_BR")
        return self._score(self.params, {name: batch[name] for name in names})

    def _score_fn(self, params: Any, batch: dict[str, jax.Array]) -> TopK:
        B, R = batch["targets_BR"].shape
        hidden_BTD = self.model.hidden(params, batch["tokens_BT"])
        hidden_BRD = gather_response(hidden_BTD, batch["prompt_len_B"], R)
        top = head_top_k(
            hidden_BRD.reshape(B * R, -1),
            self.model.head_VD(params),
            self.k,
            valid_vocab=self.vocab,
            temperature=self.temperature,
            mesh=self.mesh,
        )
        return TopK(*(x.reshape(B, R, *x.shape[1:]) for x in top))
