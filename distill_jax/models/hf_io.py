"""Hugging Face model directories in and out: config.json, safetensors, single or sharded."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.core.sharding import barrier, fetch, place
from distill_jax.models import hf_layout
from distill_jax.models import safetensor_files as files
from distill_jax.models.qwen_config import QwenConfig

# The README names the licence, for the card of an export.
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "tokenizer.model", "README.md"]


def model_dir(path_or_hub_id: str | Path, *, revision: str | None = None) -> Path:
    """A local model directory; a hub id ("owner/name") is downloaded, or found in the cache.

    `revision` is a branch, tag or commit on the hub.

    Raises:
        CheckpointError: neither a directory nor a hub id that can be fetched.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_hub_id)
    if not is_hub_id(name):
        fix = "give a directory with config.json, or a hub id such as Qwen/Qwen2.5-1.5B"
        raise CheckpointError(f"no directory {name}", fix=fix)
    # Imported here: most runs never ask the hub, and the import takes a while.
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_HUB_PATTERNS)
        )
    except (OSError, HFValidationError) as error:
        got = f"no directory {name}, and the hub did not give it: {error}"
        fix = "check the name and the network (HF_HUB_OFFLINE), or give a local directory"
        raise CheckpointError(got, fix=fix) from error


def is_hub_id(name: str) -> bool:
    """Whether `model_dir` would ask the hub: "owner/name", and nothing of that name is here."""
    return name.count("/") == 1 and name[0] not in "./~" and not Path(name).exists()


def load_config(directory: str | Path) -> QwenConfig:
    """The configuration of a local model directory.

    Raises:
        CheckpointError: no config.json, not JSON, or a model that QwenConfig does not hold.
    """
    path = Path(directory) / "config.json"
    if not Path(directory).is_dir():
        raise CheckpointError(f"no directory {directory}")
    return parse_config(path, files.read_json(path))


def parse_config(path: Path, values: Mapping[str, Any]) -> QwenConfig:
    """The configuration in the values of a config.json; path: of the file, for errors.

    Raises:
        CheckpointError: a model that QwenConfig does not hold.
    """
    try:
        return QwenConfig.from_hf(values)
    except ConfigError as error:
        got = f"{path}: {error.message}"
        raise CheckpointError(got, wanted=error.wanted, fix=error.fix) from error


def load_hf(
    path_or_hub_id: str | Path,
    *,
    param_dtype: Any = jnp.float32,
    shardings: Callable[[QwenConfig], Any] | None = None,
    convert: Callable[[tuple[str, ...], jax.Array], Any] | None = None,
    revision: str | None = None,
) -> tuple[QwenConfig, dict[str, Any]]:
    """Read a model, leaf by leaf: the host never holds more than one stacked leaf.

    Args:
        path_or_hub_id: see `model_dir`.
        param_dtype: of every parameter.
        shardings: given the configuration, a tree of NamedShardings like the base tree; None
            leaves the arrays uncommitted on the default device.
        convert: (path, array) -> what is in the tree instead; devices hold one leaf before and
            after at a time.
        revision: see `model_dir`.

    Returns:
        The configuration and the base tree ({"embed_tokens", "layers", "norm", "lm_head"}),
        leaves of `layers` stacked [L, ...], kernels [in, out].

    Raises:
        CheckpointError: missing, damaged or of another architecture.
    """
    directory = model_dir(path_or_hub_id, revision=revision)
    config = load_config(directory)
    leaves = hf_layout.leaves(config)
    targets = shardings(config) if shardings is not None else None
    with files.TensorReader(files.model_files(directory)) as reader:
        _check(reader, config, leaves, directory)
        return config, read_base(reader, leaves, param_dtype, targets, convert)


class Tensors(Protocol):
    """Tensors by their names in a checkpoint."""

    def read(self, name: str) -> np.ndarray:
        """One tensor, as a checkpoint stores it."""


def read_base(
    reader: Tensors,
    leaves: list[hf_layout.Leaf],
    param_dtype: Any,
    shardings: Any = None,
    convert: Callable[[tuple[str, ...], jax.Array], Any] | None = None,
) -> dict[str, Any]:
    """The base tree of checked tensors; shardings: a tree like it, or None; else see `load_hf`."""
    targets = flatten_dict(shardings) if shardings is not None else None
    dtype, base = np.dtype(param_dtype), dict[tuple[str, ...], Any]()
    for leaf in leaves:
        host = np.empty(leaf.tree_shape, dtype)
        for i, name in enumerate(leaf.names):
            tensor = reader.read(name)
            host[i if leaf.layers else ...] = tensor.T if leaf.transpose else tensor
        array = jnp.asarray(host) if targets is None else place(host, targets[leaf.path])
        base[leaf.path] = convert(leaf.path, array) if convert else array
    return unflatten_dict(base)


def _check(
    reader: files.TensorReader, config: QwenConfig, leaves: list[hf_layout.Leaf], where: Path
) -> None:
    wanted = {name: leaf.shape for leaf in leaves for name in leaf.names}
    for name in list(reader.where):
        if name.endswith(".rotary_emb.inv_freq"):  # a constant that old versions stored
            wanted[name] = reader.shape(name)
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    second = config.tie_embeddings and head in reader.where
    if second:  # released Qwen3 checkpoints store the tied head a second time
        wanted[head] = wanted[embedding]
    reader.check(wanted, where)
    if second and not np.array_equal(reader.read(head), reader.read(embedding)):
        got = f"{head} differs from {embedding} in {where}"
        fix = "set tie_word_embeddings to false in config.json, or drop the tensor"
        raise CheckpointError(got, wanted="one tensor, as tie_word_embeddings says", fix=fix)


def save_hf(
    directory: str | Path,
    config: QwenConfig,
    base_params: Any,
    *,
    tokenizer: Any = None,
    max_shard_bytes: int = 5_000_000_000,
    head: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
    texts: Mapping[str, str | Mapping[str, Any]] | None = None,
) -> None:
    """Write a directory that transformers loads, atomically; replaces an older model there.

    Every process of a multi-process run must call this; the first one writes.

    Args:
        directory: target.
        config: the model's configuration.
        base_params: the base tree, LoRA merged where wanted; saved in its own dtype.
        tokenizer: saved along (`save_pretrained`) when given.
        max_shard_bytes: largest weight file; a tensor that is larger gets its own file.
        head: further tensors by name, small ones; they are written to the last file.
        about: entries of config.json that replace the configuration's.
        texts: further files by name: a text, or what is written as JSON.

    Raises:
        CheckpointError: a tree that does not fit the configuration, or a target that holds
            something else.
        ConfigError: a configuration that has no form in transformers.
    """
    leaves, out, head = hf_layout.leaves(config), {**config.to_hf(), **(about or {})}, head or {}
    base = hf_layout.flat(base_params, leaves, "the parameter tree")
    dtypes = {np.dtype(array.dtype).name for array in base.values()}
    out["torch_dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
    writer = jax.process_index() == 0
    context = files.replaced_directory(Path(directory)) if writer else contextlib.nullcontext()
    plan = _plan(base, leaves, max_shard_bytes)
    plan |= dict.fromkeys(head, list(plan.values())[-1])
    tensors_in_order = itertools.chain(tensors_of(base, leaves), head.items())
    with context as fresh:
        for file, part in itertools.groupby(tensors_in_order, lambda pair: plan[pair[0]]):
            tensors = dict(part)
            if fresh is not None:
                files.write_tensors(fresh / file, tensors)
        if fresh is not None:
            _write_texts(fresh, out, plan, [base_params, dict(head)], tokenizer)
            files.write_texts(fresh, texts or {})
    barrier(f"save_hf {directory}")


def _plan(
    base: dict[tuple[str, ...], Any], leaves: list[hf_layout.Leaf], most: int
) -> dict[str, str]:
    """Which file each tensor goes to, filled in the order of `leaves`."""
    shard_of: dict[str, int] = {}
    shards, size = 1, 0
    for leaf in leaves:
        bytes_each = int(np.prod(leaf.shape)) * base[leaf.path].dtype.itemsize
        for name in leaf.names:
            if size and size + bytes_each > most:
                shards, size = shards + 1, 0
            shard_of[name] = shards
            size += bytes_each
    if shards == 1:
        return dict.fromkeys(shard_of, files.SINGLE)
    return {n: f"model-{i:05d}-of-{shards:05d}.safetensors" for n, i in shard_of.items()}


def tensors_of(
    base: dict[tuple[str, ...], Any], leaves: list[hf_layout.Leaf]
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by name, as a checkpoint stores it; base: see `hf_layout.flat`."""
    for leaf in leaves:
        host = np.asarray(fetch(base[leaf.path]))
        for i, name in enumerate(leaf.names):
            tensor = host[i] if leaf.layers else host
            yield name, tensor.T if leaf.transpose else tensor


def _write_texts(
    fresh: Path, out: dict[str, Any], weight_map: dict[str, str], tensors: Any, tokenizer: Any
) -> None:
    if set(weight_map.values()) != {files.SINGLE}:
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tensors))
        index = {"metadata": {"total_size": int(size)}, "weight_map": weight_map}
        files.write_json(fresh / files.INDEX, index)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(fresh))
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    generation = {key: out[key] for key in special if out[key] is not None}
    if generation:
        files.write_json(fresh / "generation_config.json", generation)
    files.write_json(fresh / "config.json", out)
