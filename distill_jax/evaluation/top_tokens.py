"""The most probable next tokens at each position of given responses, teacher-forced."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.kernels.logprob import gather_response
from distill_jax.models.head.top_k import head_top_k
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Rollout

# Responses in a batch: their activations stay small compared with the weights.
ROWS = 16


class TopTokens:
    """Reads responses teacher-forced; probabilities at temperature 1 over the tokens that exist.

    Args:
        model: any.
        params: its weights {"base", "lora"}, on the mesh.
        mesh: rows are split over data and fsdp.
        k: how many tokens a position, 1 to vocab.
        vocab: tokens that exist; logit rows beyond it never enter.
        pad_id: fills rows behind the response.
        multiple: lengths are rounded up to multiples of it, to limit the compiled programs.
    """

    def __init__(
        self,
        model: QwenModel,
        params: Any,
        mesh: Mesh,
        *,
        k: int,
        vocab: int,
        pad_id: int,
        multiple: int,
    ):
        self.model, self.params, self.k, self.vocab = model, params, k, vocab
        self.pad_id, self.multiple = pad_id, multiple
        self.mesh, self._batch_rows = mesh, round_up(ROWS, sharding.batch_shards(mesh))
        self._read = jax.jit(self._read_fn, out_shardings=sharding.batch_sharding(mesh))

    def read(self, prompts: Sequence[Sequence[int]], rollout: Rollout) -> dict[str, list[Any]]:
        """Columns top_ids and top_probs of the responses, one a prompt: for each of a response's
        tokens K numbers, descending, given the tokens before it; probabilities to 6 digits."""
        out: dict[str, list[Any]] = {"top_ids": [], "top_probs": []}
        for start in range(0, len(prompts), self._batch_rows):
            count = min(self._batch_rows, len(prompts) - start)
            chosen = filled(range(start, start + count), self._batch_rows)
            part = Rollout(*(leaf[chosen] for leaf in rollout))
            batch = training_batch(
                [prompts[i] for i in chosen],
                part,
                1,
                pad_id=self.pad_id,
                multiple=self.multiple,
            )
            read = {
                name: getattr(batch, name) for name in ("tokens_BT", "prompt_len_B", "targets_BR")
            }
            ids_BRK, probs_BRK = sharding.fetch(self._read(self.params, read))
            for ids_RK, probs_RK, n in zip(ids_BRK, probs_BRK, part.length_B[:count], strict=False):
                out["top_ids"].append(ids_RK[:n].tolist())
                shown = [[float(f"{p:.6g}") for p in probs] for probs in probs_RK[:n].tolist()]
                out["top_probs"].append(shown)
        return out

    def _read_fn(self, params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        targets_BR = batch["targets_BR"]
        B, R = targets_BR.shape
        hidden_BTD = self.model.hidden(params, batch["tokens_BT"])
        hidden_BRD = gather_response(hidden_BTD, batch["prompt_len_B"], R)
        hidden_ND, head_VD = hidden_BRD.reshape(B * R, -1), self.model.head_VD(params)
        top = head_top_k(hidden_ND, head_VD, self.k, valid_vocab=self.vocab, mesh=self.mesh)
        shape = (B, R, self.k)
        return top.ids_XK.reshape(shape), jnp.exp(top.logp_XK).reshape(shape)
