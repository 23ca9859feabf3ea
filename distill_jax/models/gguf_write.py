"""A model as one GGUF file that llama.cpp loads: float16 matrices, float32 norms and biases."""

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import whole
from distill_jax.models import gguf_model, gguf_rope, hf_layout
from distill_jax.models.gguf_file import library
from distill_jax.models.hf_io import tensors_of
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.rope_scaling import Llama3Scaling, YarnConfig

_FILE_TYPE_F16 = 1  # general.file_type: matrices in float16
_ELSEWHERE = "use --merged: transformers, vLLM and SGLang load that directory"


def check_config(config: QwenConfig) -> None:
    """Raises ConfigError for a geometry that a GGUF file, or llama.cpp, cannot hold."""
    kind, scaling = config.model_type, config.rope_scaling
    got, wanted = "", ""
    if kind not in gguf_model.ARCHITECTURES:
        got, wanted = f"model_type={kind!r}", " or ".join(gguf_model.ARCHITECTURES)
    elif kind == "qwen2" and config.num_heads * config.head_dim != config.hidden_size:
        got = f"qwen2 with {config.num_heads} heads of {config.head_dim}"
        wanted = f"heads that make up its width, {config.hidden_size}, as llama.cpp reads it"
    elif any(config.windows):
        got, wanted = f"sliding_window={config.sliding_window}", "full attention in every layer"
    elif isinstance(scaling, Llama3Scaling) and kind != "llama":
        got, wanted = f"rope scaling llama3 in {kind}", "it in llama alone, as llama.cpp reads it"
    elif isinstance(scaling, YarnConfig) and not scaling.truncate:
        got, wanted = "YaRN with truncate=False", "the ends of its ramp rounded"
    elif isinstance(scaling, YarnConfig) and not np.isclose(scaling.scale, _usual_scale(scaling)):
        got = f"YaRN with attention_factor={scaling.scale:.4g}"
        wanted = f"0.1·ln(factor) + 1 = {_usual_scale(scaling):.4g}"
    if got:
        raise ConfigError(f"{got} for a GGUF file", wanted=wanted, fix=_ELSEWHERE)


def save_gguf(
    path: Path,
    config: QwenConfig,
    base: Any,
    tokenizer: Mapping[str, Any],
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes the file whole or not at all; a file at `path` is replaced.

    Args:
        path: of the file, in a directory that exists.
        config: the model's configuration.
        base: the base tree, LoRA merged.
        tokenizer: its key-value pairs, of `gguf_tokenizer.values_of`.
        about: general.name, general.license and the like.

    Raises:
        MissingExtraError: the package gguf is not installed.
        ConfigError: see `check_config`; weights beyond the range of float16.
        CheckpointError: a tree that does not fit the configuration.
    """
    check_config(config)
    leaves = hf_layout.leaves(config)
    flat = hf_layout.flat(base, leaves, "the parameter tree")
    extra = _rope_tensors(config)
    shapes = {
        **{gguf_model.tensor_name(n): leaf.shape for leaf in leaves for n in leaf.names},
        **{name: tensor.shape for name, tensor in extra.items()},
    }
    with whole(path) as partial:
        out = library().GGUFWriter(partial, config.model_type)
        try:
            for key, value in {**_general(about), **_geometry(config), **tokenizer}.items():
                _add(out, key, value)
            for name, shape in shapes.items():
                dtype = _dtype(shape)
                out.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
            out.write_header_to_file()
            out.write_kv_data_to_file()
            out.write_ti_data_to_file()
            # One by one: the host holds a stacked leaf and one tensor of it. Written here, since
            # the writer's own way, numpy's tofile, does not say that a disk is full.
            (sink,) = out.fout
            out.write_padding(sink, sink.tell())
            for name, tensor in chain(_stored(config, flat, leaves), extra.items()):
                sink.write(_rounded(name, tensor).data)
                out.write_padding(sink, sink.tell())
        finally:
            out.close()
        with partial.open("rb") as file:  # the rename must not overtake the bytes
            os.fsync(file.fileno())


def _usual_scale(scaling: YarnConfig) -> float:
    return YarnConfig(scaling.factor, scaling.original_max_position_embeddings).scale


def _general(about: Mapping[str, str] | None) -> dict[str, Any]:
    return {"general.type": "model", "general.file_type": _FILE_TYPE_F16, **(about or {})}


def _geometry(config: QwenConfig) -> dict[str, Any]:
    """The architecture's keys, those that `gguf_model.config_of` reads."""
    values = config.to_hf()
    keys = {**gguf_model.NEEDED, **gguf_model.OPTIONAL}
    own = {key: values[name] for key, name in keys.items()}
    own |= dict.fromkeys(gguf_model.HEAD_SIZES, config.head_dim)
    own["vocab_size"] = config.vocab_size
    if isinstance(config.rope_scaling, YarnConfig):
        scaling = config.rope_scaling.to_hf()
        own |= {key: scaling[name] for key, name in gguf_model.SCALING.items()}
    return {f"{config.model_type}.{key}": value for key, value in own.items()}


def _rope_tensors(config: QwenConfig) -> dict[str, np.ndarray]:
    if not isinstance(config.rope_scaling, Llama3Scaling):
        return {}
    factors = gguf_rope.factors_of(config.rope_scaling, config.rope_theta, config.head_dim)
    return {gguf_rope.FACTORS: factors.astype(np.float32)}


def _stored(
    config: QwenConfig, flat: dict[tuple[str, ...], Any], leaves: list[hf_layout.Leaf]
) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by their names in the file, in its order of rows; see `gguf_model`."""
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    for name, tensor in tensors_of(flat, leaves):
        count = heads.get(name.split(".")[-2])
        if config.model_type == "llama" and count is not None:
            halves = tensor.reshape(count, 2, -1, *tensor.shape[1:])
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        yield gguf_model.tensor_name(name), tensor


def _dtype(shape: tuple[int, ...]) -> np.dtype:
    return np.dtype(np.float16 if len(shape) > 1 else np.float32)


def _rounded(name: str, tensor: np.ndarray) -> np.ndarray:
    dtype, most = _dtype(tensor.shape), float(np.abs(tensor).max(initial=0.0))
    if not most <= (largest := float(np.finfo(dtype).max)):
        got = f"{name} has a weight of size {most:.6g}"
        wanted = f"numbers of at most {largest:.6g}, the largest of {dtype.name}"
        raise ConfigError(got, wanted=wanted, fix=_ELSEWHERE)
    return np.ascontiguousarray(tensor, dtype)


def _add(out: Any, key: str, value: Any) -> None:
    kinds = {
        bool: out.add_bool, int: out.add_uint32, float: out.add_float32,
        str: out.add_string, list: out.add_array,
    }  # fmt: skip
    kinds[type(value)](key, value)
