"""Random transformers models on disk, and logits of both sides."""

import json
from unittest import mock

import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from distill_jax.models import qwen
from distill_jax.models.layers import rope_table
from distill_jax.models.qwen import QwenModel

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def rope(theta: float, **scaling):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}


QWEN2 = ("qwen2", {**SMALL, **rope(10_000.0)})
QWEN3 = ("qwen3", {**SMALL, **rope(1e6), "head_dim": 16})
LLAMA = ("llama", {**SMALL, **rope(10_000.0)})
MISTRAL = ("mistral", {**SMALL, **rope(10_000.0), "sliding_window": None})
# Pairs of a head turn 20, 2, .2 and .02 times over 128 positions: one kept, one blended, two slow.
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
CASES = {
    "qwen2_tied": ("qwen2", {**QWEN2[1], "tie_word_embeddings": True}),
    "qwen2_untied": ("qwen2", {**QWEN2[1], "tie_word_embeddings": False}),
    "qwen2_theta": ("qwen2", {**QWEN2[1], **rope(37.0)}),
    "qwen2_window": ("qwen2", {**QWEN2[1], **WINDOW}),
    "qwen2_yarn": ("qwen2", {**QWEN2[1], **rope(10_000.0, **YARN)}),
    "qwen3_tied": ("qwen3", {**QWEN3[1], "tie_word_embeddings": True}),
    "qwen3_untied": ("qwen3", {**QWEN3[1], "tie_word_embeddings": False}),
    "qwen3_window": ("qwen3", {**QWEN3[1], **WINDOW}),
    "qwen3_yarn": (
        "qwen3",
        {**QWEN3[1], **rope(1e6, **YARN, attention_factor=1.3, beta_fast=8.0, beta_slow=2.0)},
    ),
    "llama_tied": ("llama", {**LLAMA[1], "tie_word_embeddings": True}),
    "llama_llama3": ("llama", {**LLAMA[1], **rope(1e4, **LLAMA3), "max_position_embeddings": 1024}),
    "llama_yarn": ("llama", {**LLAMA[1], **rope(1e4, **YARN), "head_dim": 16}),
    "mistral_untied": ("mistral", {**MISTRAL[1], "head_dim": 16}),
    "mistral_window": ("mistral", {**MISTRAL[1], "sliding_window": 5}),
}


def random_model(family: str, values: dict, seed: int = 0) -> torch.nn.Module:
    """A transformers model whose every parameter is random: biases and norms too."""
    torch.manual_seed(seed)
    kind, config = {
        "qwen2": (Qwen2ForCausalLM, Qwen2Config),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config),
        "llama": (LlamaForCausalLM, LlamaConfig),
        "mistral": (MistralForCausalLM, MistralConfig),
    }[family]
    # The `sdpa` kernel has its own rounding; eager is plain matmul and softmax.
    model = kind(config(**values, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3)
            if "norm" in name:
                parameter.add_(1.0)
    return model


def old_style_rope(directory) -> None:
    """Rewrite config.json the way transformers 4 did: rope_theta and rope_scaling at the top."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    kind = scaling.pop("rope_type")
    config["rope_scaling"] = {"type": kind, **scaling} if kind != "default" else None
    path.write_text(json.dumps(config))


def load_torch(directory) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def torch_logits(model, tokens_BT, *, valid_BT=None, positions_BT=None) -> np.ndarray:
    def tensor(x):
        return None if x is None else torch.tensor(np.asarray(x), dtype=torch.long)

    with torch.no_grad():
        out = model(
            input_ids=tensor(tokens_BT),
            attention_mask=tensor(valid_BT),
            position_ids=tensor(positions_BT),
        )
    return out.logits.numpy()


def jax_logits(
    config, base, tokens_BT, *, lora=None, lora_params=None, positions_BT=None
) -> np.ndarray:
    """Logits of our model; positions_BT replaces 0, 1, ... in rope."""
    model = QwenModel(config, lora)
    params = {"base": base, "lora": lora_params or {}}
    tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
    if positions_BT is None:
        hidden = model.hidden(params, tokens_BT)
    else:
        table = rope_table(config, jnp.asarray(positions_BT))
        with mock.patch.object(qwen, "rope_table", lambda *_: table):
            hidden = model.hidden(params, tokens_BT)
    return np.asarray(hidden @ model.head_VD(params).T)


def random_tokens(batch: int, time: int, vocab: int = 97, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, (batch, time)).astype(np.int32)
