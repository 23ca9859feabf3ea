"""Writes a random model as a GGUF file, as llama.cpp's converter does."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from distill_jax.models import hf_io, hf_layout
from distill_jax.models.qwen_config import QwenConfig

SHAPE = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_layers": 2,
    "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
    "rope_theta": 10_000.0, "rms_norm_eps": 1e-5,
}  # fmt: skip
CONFIGS = {
    "llama": QwenConfig("llama", qkv_bias=False, **SHAPE),
    "llama_untied": QwenConfig("llama", qkv_bias=False, tie_embeddings=False, **SHAPE),
    "qwen2": QwenConfig("qwen2", **SHAPE),
    "qwen3": QwenConfig("qwen3", qkv_bias=False, qk_norm=True, **{**SHAPE, "head_dim": 32}),
}
# (key behind the architecture, attribute of QwenConfig, kind of GGUF value)
KEYS = [
    ("block_count", "num_layers", "uint32"),
    ("context_length", "max_position_embeddings", "uint32"),
    ("embedding_length", "hidden_size", "uint32"),
    ("feed_forward_length", "intermediate_size", "uint32"),
    ("attention.head_count", "num_heads", "uint32"),
    ("attention.head_count_kv", "num_kv_heads", "uint32"),
    ("attention.key_length", "head_dim", "uint32"),
    ("attention.value_length", "head_dim", "uint32"),
    ("rope.freq_base", "rope_theta", "float32"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps", "float32"),
    ("vocab_size", "vocab_size", "uint32"),
]
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def random_tensors(config: QwenConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the model by its name in a Hugging Face checkpoint."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(leaf.shape).astype(np.float32) * 0.3
        for leaf in hf_layout.leaves(config)
        for name in leaf.names
    }


def permute(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as convert_hf_to_gguf.py orders them for llama (`permute`)."""
    rows = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, rows, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def gguf_name(name: str) -> str:
    stem, _, part = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{NAMES[stem]}.{part}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{part}"


def write_gguf(
    path: Path,
    config: QwenConfig,
    tensors: dict[str, np.ndarray],
    *,
    tokenizer: Any = None,
    pre: str = "qwen2",
    kind: str = "F32",
    keys: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """Args: kind: type of the matrices; keys: of the architecture, added or (None) omitted."""
    out = gguf.GGUFWriter(path, config.model_type)
    given = dict(keys or {})
    for key, attribute, type_ in KEYS:
        if key not in given:
            getattr(out, f"add_{type_}")(f"{config.model_type}.{key}", getattr(config, attribute))
    given = {f"{config.model_type}.{key}": value for key, value in given.items()}
    if tokenizer is not None:
        given |= tokenizer_values(tokenizer, pre, rows=config.vocab_size)
    for key, value in given.items():
        if value is not None:
            add = {str: out.add_string, float: out.add_float32, list: out.add_array}
            add.get(type(value), out.add_uint32)(key, value)
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if config.model_type == "llama" and part in heads:
            tensor = permute(tensor, heads[part])
        if tensor.ndim == 2 and kind != "F32":
            type_ = gguf.GGMLQuantizationType[kind]
            out.add_tensor(gguf_name(name), gguf.quantize(tensor, type_), raw_dtype=type_)
        else:
            out.add_tensor(gguf_name(name), tensor)
    for name, tensor in (extra or {}).items():
        out.add_tensor(name, tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def tokenizer_values(tokenizer: Any, pre: str, *, rows: int) -> dict[str, Any]:
    """A byte-level tokenizer as GGUF values; rows of the embedding without a token are unused."""
    ids = {i: text for text, i in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [ids.get(i, f"[PAD{i}]") for i in range(rows)],
        "tokenizer.ggml.token_type": [
            5 if i not in ids else 3 if i in added else 1 for i in range(rows)
        ],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def tensors_of(config: QwenConfig, base: Any) -> dict[str, np.ndarray]:
    """The tensors of a base tree by their names in a Hugging Face checkpoint."""
    flat = hf_layout.flat(base, hf_layout.leaves(config), "the tree")
    found = {}
    for leaf in hf_layout.leaves(config):
        for i, name in enumerate(leaf.names):
            tensor = np.asarray(flat[leaf.path])[i if leaf.layers else ...]
            found[name] = tensor.T if leaf.transpose else tensor
    return found


class _Stored(dict):
    read = dict.__getitem__


def base_of(config: QwenConfig, tensors: dict[str, np.ndarray]) -> Any:
    """The base tree of tensors by their names in a Hugging Face checkpoint."""
    return hf_io.read_base(_Stored(tensors), hf_layout.leaves(config), np.float32)


def halved(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Float32 tensors whose matrices were rounded to float16, as a file written here holds them."""
    return {
        name: (x.astype(np.float16) if x.ndim > 1 else x).astype(np.float32)
        for name, x in tensors.items()
    }
