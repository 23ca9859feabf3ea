"""Bytes of weights on one device, exact: trees by `jax.eval_shape`, split as the real load does."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from distill_jax.core import sharding
from distill_jax.core.sharding import AnyMesh
from distill_jax.models import quantised
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.settings import ModelSettings
from distill_jax.training import state as states


def device_bytes(shapes: Any, shardings: Any) -> int:
    """Bytes of a tree of ShapeDtypeStructs (or arrays), so sharded, on the fullest device."""
    sizes = jax.tree.map(
        lambda leaf, where: math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        shapes,
        shardings,
    )
    return sum(jax.tree.leaves(sizes))


def weights_bytes(
    geometry: QwenConfig, settings: ModelSettings, mesh: AnyMesh, *, dtype: str = ""
) -> int:
    """A base tree on one device as `Models.load` holds it; `dtype` instead of param_dtype."""
    held = dtype or settings.param_dtype
    model = QwenModel(geometry, param_dtype=held)
    shapes = model.shapes()
    if settings.int8 and not dtype:
        shapes = {**shapes, "base": _as_int8(shapes["base"], settings.compute_dtype)}
    return device_bytes(shapes, states.param_shardings(shapes, mesh))


def _as_int8(tree: Any, dtype: str) -> Any:
    """Shapes of the tree with quantised kernels."""

    def one(path: Any, leaf: Any) -> Any:
        if not quantised.is_quantised(tuple(entry.key for entry in path)):
            return leaf
        scale = jax.ShapeDtypeStruct((leaf.shape[0], 1, leaf.shape[2]), dtype)
        return _Int8(jax.ShapeDtypeStruct(leaf.shape, jnp.int8), scale)

    return jax.tree_util.tree_map_with_path(one, tree)


class _Int8(NamedTuple):
    """The leaves of qwix's QArray, without qwix."""

    qvalue: jax.ShapeDtypeStruct
    scale: jax.ShapeDtypeStruct


def decode_bytes(geometry: QwenConfig, settings: ModelSettings, mesh: AnyMesh) -> int:
    """The copy of the weights that decoding reads, in compute_dtype: whole but for tensor."""
    mesh = AbstractMesh((1, 1, mesh.shape["tensor"]), sharding.AXES)
    copy = weights_bytes(geometry, settings, mesh, dtype=settings.compute_dtype)
    if geometry.tie_embeddings:  # a head next to the embedding
        shape = (geometry.vocab_size, geometry.hidden_size)
        spec = sharding.partition_spec(("vocab", "embed"), shape, mesh)
        head = jax.ShapeDtypeStruct(shape, settings.compute_dtype)
        copy += device_bytes(head, jax.sharding.NamedSharding(mesh, spec))
    return copy
