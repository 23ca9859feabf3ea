"""Dense Llama, Qwen2 and Qwen3 models in GGUF files: geometry and parameter tree."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.models import gguf_rope, hf_layout
from distill_jax.models.gguf_file import GgufFile
from distill_jax.models.hf_io import read_base
from distill_jax.models.qwen_config import QwenConfig

ARCHITECTURES = ("llama", "qwen2", "qwen3")

# Keys behind "ARCHITECTURE.", and what config.json calls them.
NEEDED = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}
SCALING = {
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
# Read elsewhere or without effect here.
_OTHERS = ("vocab_size", "rope.scaling.finetuned", *HEAD_SIZES)
_EXPERTS = ("expert_count", "expert_used_count")
_SPECIALS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}

# Tensors by their names in a Hugging Face checkpoint.
_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{x}_norm": f"attn_{x}_norm" for x in "qk"},
    **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
}


def config_of(file: GgufFile) -> QwenConfig:
    """The geometry of a GGUF file.

    Raises:
        CheckpointError: an architecture, key or rope scaling that our model cannot hold, by name.
    """
    values, kind = file.values, file.values.get("general.architecture")
    if kind not in ARCHITECTURES:
        wanted = f"a dense model of {', '.join(ARCHITECTURES)}"
        raise CheckpointError(f"{file.path} holds the architecture {kind!r}", wanted=wanted)
    own = {n.removeprefix(f"{kind}."): x for n, x in values.items() if n.startswith(f"{kind}.")}
    _check_keys(file, kind, own)
    if "token_embd.weight" not in file.shapes:
        raise CheckpointError(f"no tensor token_embd.weight in {file.path}")
    names = {**NEEDED, **OPTIONAL}
    config = {
        "model_type": kind,
        "rope_theta": 10_000.0,
        **{names[key]: _plain(value) for key, value in own.items() if key in names},
        "head_dim": _head_dim(file, own),
        "vocab_size": file.shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in file.shapes,
        "rope_scaling": _scaling(file, own),
        **{key: values.get(f"tokenizer.ggml.{x}_token_id") for key, x in _SPECIALS.items()},
    }
    try:
        return QwenConfig.from_hf(config)
    except ConfigError as error:
        got = f"{file.path}: {error.message}"
        raise CheckpointError(got, wanted=error.wanted, fix=error.fix) from error


def base_of(file: GgufFile, config: QwenConfig) -> dict[str, Any]:
    """The base tree, float32, as `hf_io.load_hf` gives it.

    Raises:
        CheckpointError: missing, unexpected, misshapen or unreadable tensors.
    """
    leaves = hf_layout.leaves(config)
    wanted = {tensor_name(name): leaf.shape for leaf in leaves for name in leaf.names}
    missing = sorted(wanted.keys() - file.shapes.keys())
    extra = sorted(file.shapes.keys() - wanted.keys() - {gguf_rope.FACTORS})
    if missing or extra:
        parts = [f"missing {', '.join(missing[:4])}"] if missing else []
        parts += [f"unexpected {', '.join(extra[:4])}"] if extra else []
        raise CheckpointError(
            f"tensors in {file.path}: {' and '.join(parts)}",
            wanted=f"those of a dense {config.model_type} model, {len(wanted)} of them",
        )
    for name, shape in wanted.items():
        if file.shapes[name] != shape:
            got = f"{name} in {file.path} has shape {list(file.shapes[name])}"
            raise CheckpointError(got, wanted=str(list(shape)))
    return read_base(_Tensors(file, config), leaves, jnp.float32)


class _Tensors:
    """The tensors of a file by their names in a Hugging Face checkpoint."""

    def __init__(self, file: GgufFile, config: QwenConfig):
        self.file, self.permuted = file, config.model_type == "llama"
        self.heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}

    def read(self, name: str) -> np.ndarray:
        """One tensor, float32; queries and keys of llama with the halves of a head in order.

        llama.cpp rotates neighbouring rows of a head in this architecture, transformers those half
        a head apart: the file has them interleaved.
        """
        tensor = self.file.read(tensor_name(name))
        heads = self.heads.get(name.split(".")[-2])
        if not self.permuted or heads is None:
            return tensor
        rows = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
        return rows.swapaxes(1, 2).reshape(tensor.shape)


def tensor_name(name: str) -> str:
    """The name in a GGUF file, blk.3.attn_q.weight for model.layers.3.self_attn.q_proj.weight."""
    stem, _, part = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    if layer is None:
        return f"{_TENSORS[stem]}.{part}"
    return f"blk.{layer[1]}.{_TENSORS[layer[2]]}.{part}"


def _check_keys(file: GgufFile, kind: str, own: dict[str, Any]) -> None:
    for key in NEEDED:
        if key not in own:
            raise CheckpointError(f"no {kind}.{key} in {file.path}")
    known = {*NEEDED, *OPTIONAL, *SCALING, *_OTHERS}
    for key, value in own.items():
        if key in _EXPERTS and not value:
            continue
        if key not in known or isinstance(value, list):
            got = f"{kind}.{key}={value!r:.40} in {file.path}"
            wanted = "the same value in every layer" if key in known else "a model without it"
            raise CheckpointError(got, wanted=wanted, fix="our model cannot hold this one")
        if isinstance(value, str) and key != "rope.scaling.type":
            raise CheckpointError(f"{kind}.{key}={value!r:.40} in {file.path}", wanted="a number")
    layers, tensors = own["block_count"], len(file.shapes)
    if layers > tensors:  # or the names of so many layers' tensors would be made
        got = f"{kind}.block_count={layers} in {file.path} with {tensors} tensors"
        raise CheckpointError(got, wanted="tensors of each layer")


def _head_dim(file: GgufFile, own: dict[str, Any]) -> int:
    usual = own["embedding_length"] // max(own["attention.head_count"], 1)
    size = own.get("attention.key_length", usual)
    if other := {key: own[key] for key in HEAD_SIZES if own.get(key, size) != size}:
        got = f"{file.path} has heads of {size} with {other}"
        raise CheckpointError(got, wanted="one size of heads, rope over all of it")
    return size


def _scaling(file: GgufFile, own: dict[str, Any]) -> dict[str, Any] | None:
    """The entry rope_scaling of config.json, None without a scaling."""
    named = {SCALING[name]: _plain(x) for name, x in own.items() if name in SCALING}
    # llama.cpp takes a factor without a type as linear; 0 and 1 do nothing.
    kind = named.setdefault(
        "rope_type", "linear" if named.get("factor", 0) not in (0, 1) else "none"
    )
    if gguf_rope.FACTORS not in file.shapes:
        return None if kind == "none" else named
    if kind != "none":
        got = f"{file.path} has {gguf_rope.FACTORS} and a scaling of type {kind!r}"
        raise CheckpointError(got, wanted="one of them")
    found, size = file.read(gguf_rope.FACTORS), _head_dim(file, own)
    scaling = None
    if found.shape == (size // 2,):
        scaling = gguf_rope.scaling_of(found, float(own.get("rope.freq_base", 10_000.0)))
    if scaling is None:
        got = f"{gguf_rope.FACTORS} in {file.path} are of no scaling known here"
        raise CheckpointError(got, wanted="that of Llama 3.1 and later")
    return scaling.to_hf()


def _plain(value: Any) -> Any:
    """A float32 of the file as it was written: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
