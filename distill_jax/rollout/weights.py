"""Decode weights on the mesh: whole over data and fsdp, so that no decode step gathers any.

Made where the trained weights are, in parts over fsdp; then gathered a layer at a time, each split
layer freed before the next. In one program all gathers would be in memory together.
"""

import functools
from typing import Any

import jax
from jax.sharding import NamedSharding

from distill_jax.core import sharding
from distill_jax.core.sharding import AnyMesh
from distill_jax.models.qwen import QwenModel

# The logical axes of kernels [in, out] of each group of projections: what tensor splits.
_AXES = {
    "qkv": (None, "heads"),
    "gate_up": (None, "mlp"),
    "o": ("heads", None),
    "down": ("mlp", None),
}


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def decode_weights(model: QwenModel, params: Any, merge_lora: bool, vocab: int) -> dict[str, Any]:
    """Decode weights and head, split as XLA finds them in the parameters.

    One program of all samplers of a model.
    """
    # The head in the dtype of the trainer's matmul: a float32 head would be read whole at every
    # step and give other scores than in training.
    head_VD = model.head_VD(params)[:vocab].astype(model.compute_dtype)
    return {"body": model.decode_params(params, merge_lora), "head_VD": head_VD}


def decode_shardings(weights: Any, mesh: AnyMesh) -> Any:
    """NamedShardings of decode weights (or their shapes): over tensor alone."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        axes = _axes(names, leaf.ndim)
        return NamedSharding(mesh, sharding.partition_spec(axes, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, weights)


def _axes(names: list[str], rank: int) -> tuple[str | None, ...]:
    if names[-1] in ("embedding", "head_VD"):
        return ("vocab", None)
    group = next((name for name in names if name in _AXES), None)
    if group is None:
        return (None,) * rank
    into, out = _AXES[group]
    return {"bias": (out,), "lora_A": (into, None), "lora_B": (None, out)}.get(
        names[-1], (into, out)
    )


def gathered(weights: dict[str, Any], mesh: AnyMesh) -> dict[str, Any]:
    """The result of `decode_weights`, placed as `decode_shardings` says; changes it in place."""
    if mesh.shape["fsdp"] == 1:  # nothing is split over it
        return weights
    where = decode_shardings(weights, mesh)
    body, layers = weights["body"], weights["body"]["layers"]
    for index, placement in enumerate(where["body"]["layers"]):
        layers[index] = gather(placement)(layers[index])
    for name in body.keys() - {"layers"}:
        body[name] = gather(where["body"][name])(body[name])
    return {"body": body, "head_VD": gather(where["head_VD"])(weights["head_VD"])}


def gather(where: Any) -> Any:
    """A jitted identity whose result is placed as `where`; one program of equal placements."""
    leaves, tree = jax.tree.flatten(where)
    return _identity(tree, *leaves)


@functools.lru_cache(maxsize=64)
def _identity(tree: Any, *leaves: NamedSharding) -> Any:
    return jax.jit(lambda x: x, out_shardings=jax.tree.unflatten(tree, leaves))
