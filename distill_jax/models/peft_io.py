"""LoRA adapters in PEFT's format, in and out: adapter_config.json, adapter_model.safetensors."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from distill_jax.core.errors import CheckpointError
from distill_jax.core.sharding import barrier, fetch
from distill_jax.models import hf_layout
from distill_jax.models import safetensor_files as files
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen_config import QwenConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_KEY = re.compile(
    r"base_model\.model\.model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+)\.lora_A\.weight"
)
# Settings of peft that change what an adapter computes, and the value that means "not used".
_UNSUPPORTED: dict[str, Any] = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
    "lora_bias": False,
}


def adapter_leaves(config: QwenConfig, lora: LoraConfig) -> list[hf_layout.Leaf]:
    """Every leaf of the LoRA tree with its tensors in PEFT's naming: A [r, in], B [out, r]."""
    out = []
    for name, (parent, inputs, outputs) in hf_layout.projections(config).items():
        if name not in lora.targets:
            continue
        for part, shape in (("lora_A", (lora.rank, inputs)), ("lora_B", (outputs, lora.rank))):
            key = f"base_model.model.model.layers.{{}}.{parent}.{name}.{part}.weight"
            path = ("layers", parent, name, part)
            out.append(hf_layout.Leaf(path, key, shape, transpose=True, layers=config.num_layers))
    return out


def save_adapter(
    directory: str | Path,
    config: QwenConfig,
    lora: LoraConfig,
    lora_params: Any,
    base_model_name: str | Path,
    *,
    tokenizer: Any = None,
    further: Mapping[str, Any] | None = None,
    texts: Mapping[str, str | Mapping[str, Any]] | None = None,
) -> None:
    """Write an adapter that `peft.PeftModel.from_pretrained` loads, atomically.

    Every process of a multi-process run must call this; the first one writes.

    Args:
        directory: target; an older adapter there is replaced.
        config: the base model's configuration.
        lora: rank, alpha, dropout and targets.
        lora_params: the LoRA tree, leaves [L, in, r] and [L, r, out]; saved in its own dtype.
        base_model_name: hub id or directory of the base model, for adapter_config.json.
        tokenizer: saved along (`save_pretrained`) when given.
        further: LoRA trees of the same settings by file name, in the same form.
        texts: further files by name: a text, or what is written as JSON.

    Raises:
        CheckpointError: a tree that does not fit the configurations.
    """
    leaves = adapter_leaves(config, lora)
    trees = {WEIGHTS: lora_params, **(further or {})}
    files_of = {file: _tensors(tree, leaves) for file, tree in trees.items()}
    writer = jax.process_index() == 0
    context = files.replaced_directory(Path(directory)) if writer else contextlib.nullcontext()
    with context as fresh:
        if fresh is not None:
            for file, tensors in files_of.items():
                files.write_tensors(fresh / file, tensors)
            files.write_json(fresh / CONFIG, _adapter_config(lora, str(base_model_name)))
            if tokenizer is not None:
                tokenizer.save_pretrained(str(fresh))
            files.write_texts(fresh, texts or {})
    barrier(f"save_adapter {directory}")


def _tensors(tree: Any, leaves: list[hf_layout.Leaf]) -> dict[str, np.ndarray]:
    arrays = hf_layout.flat(tree, leaves, "the LoRA tree")
    tensors: dict[str, np.ndarray] = {}
    for leaf in leaves:
        host = np.asarray(fetch(arrays[leaf.path]))
        tensors.update({name: host[i].T for i, name in enumerate(leaf.names)})
    return tensors


def _adapter_config(lora: LoraConfig, base_model_name: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "init_lora_weights": True,
        "inference_mode": True,
        "use_rslora": lora.use_rslora,
        **_UNSUPPORTED,
    }


def base_of(directory: Path) -> Path | None:
    """The directory of the base model that an adapter names; None if it names none."""
    named = files.read_json(directory / CONFIG).get("base_model_name_or_path")
    return Path(named) if named and Path(named).is_dir() else None


def load_adapter(
    directory: str | Path,
    config: QwenConfig,
    *,
    param_dtype: Any = jnp.float32,
    weights: str = WEIGHTS,
) -> tuple[dict[str, Any], LoraConfig]:
    """Read an adapter that peft, or `save_adapter`, wrote.

    The key set must be exactly that of the adapter's projections on every layer: peft itself
    only warns about keys that fit nothing. `weights` is the file of the tensors.

    Returns:
        The LoRA tree, leaves [L, in, r] and [L, r, out] of `param_dtype`, and its LoraConfig.

    Raises:
        CheckpointError: missing or damaged files, an adapter of another kind, or one that does
            not fit the base model.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"no directory {directory}", wanted="a PEFT adapter")
    settings = files.read_json(directory / CONFIG)
    with files.TensorReader([directory / weights]) as reader:
        lora = _lora_config(settings, directory / CONFIG, set(reader.where))
        leaves = adapter_leaves(config, lora)
        reader.check({name: leaf.shape for leaf in leaves for name in leaf.names}, directory)
        tree: dict[tuple[str, ...], Any] = {}
        for leaf in leaves:
            stack = [reader.read(name).T for name in leaf.names]
            tree[leaf.path] = jnp.asarray(np.stack(stack), param_dtype)
    return unflatten_dict(tree), lora


def _lora_config(settings: dict[str, Any], where: Path, keys: set[str]) -> LoraConfig:
    if settings.get("peft_type") != "LORA":
        got = f"{where}: peft_type={settings.get('peft_type')!r}"
        raise CheckpointError(got, wanted="a LORA adapter")
    for name, plain in _UNSUPPORTED.items():
        if settings.get(name, plain) not in (plain, None):
            got = f"{where}: {name}={settings[name]!r}"
            fix = "merge the adapter into its base with peft and load the merged model"
            raise CheckpointError(got, wanted=f"{plain!r}", fix=fix)
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    for name, value in (("r", rank), ("lora_alpha", alpha)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise CheckpointError(f"{where}: {name}={value!r}", wanted="a number above 0")
    assert isinstance(rank, int | float) and isinstance(alpha, int | float)
    # target_modules may be a list, a pattern or "all-linear": the keys say what it meant.
    found = {match[1] for key in keys if (match := _KEY.fullmatch(key))}
    order = [name for name in LoraConfig().targets if name in found]
    if not order:
        got = f"no LoRA tensors of the seven projections in {where.parent / WEIGHTS}"
        fix = "keys must start with base_model.model.model.layers"
        raise CheckpointError(got, fix=fix)
    dropout = float(settings.get("lora_dropout") or 0.0)
    return LoraConfig(
        rank=int(rank),
        alpha=float(alpha),
        use_rslora=bool(settings.get("use_rslora")),
        dropout=dropout,
        targets=tuple(order),
    )
