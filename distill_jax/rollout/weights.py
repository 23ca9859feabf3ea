"""Decode weights on the mesh: whole over data and fsdp, so that no decode step gathers any.

Made where the trained weights are, in parts over fsdp; then gathered a layer at a time, each split
layer freed before the next. In one program all gathers would be in memory together.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.core.sharding import AnyMesh
from distill_jax.models.head.chunks import NEVER
from distill_jax.models.qwen import QwenModel

# From so many tokens on the head is in blocks, whose width is a multiple of a TPU's lanes. Logits
# of a smaller one are few.
BLOCKED_FROM = 2**14
_LANES = 128

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

    Returns:
        {"body": of `decode_params`, "head_RWD": the head in `blocks(vocab)`, its last rows padding,
        "vocab": int32}.
    """
    # The head in the dtype of the trainer's matmul: a float32 head would be read whole at every
    # step and give other scores than in training.
    R, W = blocks(vocab)
    head_VD = model.head_VD(params)[:vocab].astype(model.compute_dtype)
    head_RWD = jnp.pad(head_VD, ((0, R * W - vocab), (0, 0))).reshape(R, W, -1)
    body = model.decode_params(params, merge_lora)
    return {"body": body, "head_RWD": head_RWD, "vocab": jnp.int32(vocab)}


def blocks(vocab: int) -> tuple[int, int]:
    """(R, W) of a head of so many tokens: near a square, with R·W ≥ vocab; (1, vocab) if small."""
    if vocab < BLOCKED_FROM:
        return 1, vocab
    lanes = round_up(vocab, _LANES) // _LANES
    near = [m for m in range(1, lanes + 1) if lanes % m == 0]
    width = _LANES * min(near, key=lambda m: abs(math.log(_LANES * m * m / lanes)))
    return lanes * _LANES // width, width


def head_logits(weights: dict[str, Any], hidden_BD: jax.Array) -> jax.Array:
    """f32 logits [B, R, W], NEVER at padding; with one block [B, V]."""
    head_RWD = weights["head_RWD"]
    R, W, _ = head_RWD.shape
    if R == 1:
        return jnp.einsum("bd,vd->bv", hidden_BD, head_RWD[0], preferred_element_type=jnp.float32)
    logits_BRW = jnp.einsum("bd,rwd->brw", hidden_BD, head_RWD, preferred_element_type=jnp.float32)
    id_RW = jnp.arange(R)[:, None] * W + jnp.arange(W)
    return jnp.where(id_RW < weights["vocab"], logits_BRW, NEVER)


def head_rows(weights: dict[str, Any]) -> jax.Array:
    """The head as rows [R·W, D], from `vocab` on padding."""
    head_RWD = weights["head_RWD"]
    return head_RWD.reshape(-1, head_RWD.shape[-1])


def decode_shardings(weights: Any, mesh: AnyMesh) -> Any:
    """NamedShardings of decode weights (or their shapes): over tensor alone."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        axes = _axes(names, leaf.shape, mesh.shape["tensor"])
        return NamedSharding(mesh, sharding.partition_spec(axes, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, weights)


def _axes(names: list[str], shape: tuple[int, ...], tensor: int) -> tuple[str | None, ...]:
    if names[-1] == "embedding":
        return ("vocab", None)
    if names[-1] == "head_RWD":  # by blocks where their number allows it, else inside of each
        by_blocks = shape[0] > 1 and shape[0] % tensor == 0
        return ("vocab", None, None) if by_blocks else (None, "vocab", None)
    group = next((name for name in names if name in _AXES), None)
    if group is None:
        return (None,) * len(shape)
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
    head_RWD = gather(where["head_RWD"])(weights["head_RWD"])
    return {**weights, "body": body, "head_RWD": head_RWD}


def gather(where: Any) -> Any:
    """A jitted identity whose result is placed as `where`; one program of equal placements."""
    leaves, tree = jax.tree.flatten(where)
    return _identity(tree, *leaves)


@functools.lru_cache(maxsize=64)
def _identity(tree: Any, *leaves: NamedSharding) -> Any:
    return jax.jit(lambda x: x, out_shardings=jax.tree.unflatten(tree, leaves))
