"""The peers' common shape as a Tunix model, its LoRA, and a tokenizer made in code."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from tunix.models.qwen2 import model as qwen2

from third_party.peers import shapes


class WordTokenizer:
    """One word `w{i}` per token, in the interface of Tunix's own adapter."""

    def encode(self, text: str, **options: Any) -> list[int]:
        return [int(word[1:]) for word in text.split()]

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return shapes.words(ids)

    def bos_id(self) -> int | None:
        return None

    def eos_id(self) -> int:
        return shapes.EOS_ID

    def pad_id(self) -> int:
        return shapes.PAD_ID


def count(model: nnx.Module, kind: type[nnx.Variable]) -> int:
    """Number of values held in variables of `kind`."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, kind)))


def base_model() -> qwen2.Qwen2:
    """Qwen2 with random float32 weights: normal kernels, norms at one, biases at zero.

    Tunix starts its MLP kernels at zero (it expects a checkpoint), so every matrix is drawn here.
    """
    config = qwen2.ModelConfig(
        num_layers=shapes.NUM_LAYERS,
        vocab_size=shapes.VOCAB_SIZE,
        embed_dim=shapes.HIDDEN_SIZE,
        hidden_dim=shapes.INTERMEDIATE_SIZE,
        num_heads=shapes.NUM_HEADS,
        head_dim=shapes.HEAD_DIM,
        num_kv_heads=shapes.NUM_KV_HEADS,
        rope_theta=int(shapes.ROPE_THETA),
        norm_eps=shapes.RMS_NORM_EPS,
        use_tied_embedding=True,
    )
    model = qwen2.Qwen2(config, rngs=nnx.Rngs(0))
    shapes.require(count(model, nnx.Param), shapes.BASE_PARAMETERS, "base parameters")
    leaves, treedef = jax.tree.flatten(nnx.state(model, nnx.Param))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        leaf if leaf.ndim < 2 else shapes.INIT_STD * jax.random.normal(key, leaf.shape, jnp.float32)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    nnx.update(model, jax.tree.unflatten(treedef, drawn))
    return model


def lora_model() -> nnx.Module:
    """The base model with LoRA on the seven projections."""
    provider = qwix.LoraProvider(
        module_path=".*(" + "|".join(shapes.LORA_TARGETS) + ")",
        rank=shapes.LORA_RANK,
        alpha=shapes.LORA_ALPHA,
    )
    base = base_model()
    model = qwix.apply_lora_to_model(base, provider, **base.get_model_input(), rngs=nnx.Rngs(1))
    shapes.require(count(model, nnx.LoRAParam), shapes.LORA_PARAMETERS, "LoRA parameters")
    return model
