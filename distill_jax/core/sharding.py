"""Device mesh (data, fsdp, tensor), logical axis names and the arrays' way on and off the mesh.

One device is a 1×1×1 mesh: there is no second code path. Parameters name their axes logically
(`embed`, `heads`, ...); `RULES` says which mesh axis each is split over.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from distill_jax.core.errors import MeshError
from distill_jax.core.settings import setting

# An abstract one tells where arrays would lie on devices that are not here.
AnyMesh = Mesh | AbstractMesh
AXES = ("data", "fsdp", "tensor")

# Logical name -> mesh axis. Names that are not listed are replicated.
RULES = {
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "batch": ("data", "fsdp"),
}


@dataclass(frozen=True)
class MeshSettings:
    """Extents of the device mesh; -1 for at most one axis takes what is left."""

    data: int = setting(-1, "Replicas: the batch is split, parameters are copied.", low=-1)
    fsdp: int = setting(1, "Batch and parameters are both split over this axis.", low=-1)
    tensor: int = setting(1, "Heads, feed-forward and vocabulary are split.", low=-1)

    def shape(self, devices: int) -> tuple[int, int, int]:
        """The extents for a device count.

        Raises:
            MeshError: they do not multiply to the device count.
        """
        sizes = [self.data, self.fsdp, self.tensor]
        known = int(np.prod([s for s in sizes if s != -1]))
        if 0 in sizes or sizes.count(-1) > 1:
            raise MeshError(f"mesh {dict(zip(AXES, sizes, strict=True))}", wanted="at most one -1")
        if -1 in sizes and devices % known == 0:
            sizes[sizes.index(-1)] = devices // known
        if int(np.prod(sizes)) != devices:
            got = f"mesh {dict(zip(AXES, sizes, strict=True))} on {devices} devices"
            raise MeshError(got, fix="set mesh.data, mesh.fsdp, mesh.tensor to multiply to it")
        return (sizes[0], sizes[1], sizes[2])


def make_mesh(settings: MeshSettings, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices (of all processes), or over those given."""
    devices = list(jax.devices()) if devices is None else devices
    shape = settings.shape(len(devices))
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


def abstract_mesh(settings: MeshSettings, devices: int) -> AbstractMesh:
    """The mesh over so many devices, none of which need exist.

    Raises:
        MeshError: the extents do not multiply to them.
    """
    return AbstractMesh(settings.shape(devices), AXES)


def platform(mesh: AnyMesh) -> str | None:
    """Of the mesh's devices, which need not be here: "cpu", "gpu" or "tpu"; None if abstract."""
    return None if isinstance(mesh, AbstractMesh) else str(mesh.devices.flat[0].platform)


def first_device(mesh: AnyMesh) -> jax.Device | None:
    """A device of the mesh, of this process where it has one; None if the mesh is abstract."""
    if isinstance(mesh, AbstractMesh):
        return None
    devices = list(mesh.devices.flat)
    own = jax.process_index()
    return next((one for one in devices if one.process_index == own), devices[0])


def processes(mesh: AnyMesh) -> int:
    """Over how many processes the mesh's devices lie; 1 if the mesh is abstract."""
    if isinstance(mesh, AbstractMesh):
        return 1
    return len({device.process_index for device in mesh.devices.flat})


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def batch_shards(mesh: AnyMesh) -> int:
    """Into how many parts a batch is split."""
    return int(mesh.shape["data"] * mesh.shape["fsdp"])


def check_batch(name: str, size: int, mesh: Mesh) -> None:
    """Raises MeshError when a batch of `size` rows cannot be split over the mesh."""
    parts = batch_shards(mesh)
    if size % parts:
        raise MeshError(
            f"{name}={size} rows on a mesh with data×fsdp={parts}",
            wanted=f"a multiple of {parts}",
            fix=f"set {name} to {max(parts, size // parts * parts)} or shrink mesh.data/mesh.fsdp",
        )


def partition_spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: AnyMesh):
    """Mesh axes for an array with these logical axes.

    An extent that its mesh axis does not divide stays whole. Heads are not seen here, only heads
    times width: `run.models.build` refuses a tensor axis that would split them inside.
    """
    parts: list[Any] = []
    for name, extent in zip(axes, shape, strict=True):
        rule = RULES.get(name or "", ())
        size = math.prod(mesh.shape[a] for a in ((rule,) if isinstance(rule, str) else rule))
        parts.append(rule if size > 1 and extent % size == 0 else None)
    return PartitionSpec(*parts)


def shardings(tree: Any, axes: Any, mesh: AnyMesh) -> Any:
    """NamedShardings for a tree of arrays (or ShapeDtypeStructs) from its tree of logical axes."""
    return jax.tree.map(
        lambda leaf, names: NamedSharding(mesh, partition_spec(names, leaf.shape, mesh)), tree, axes
    )


def abstract(tree: Any, sharding: Any) -> Any:
    """The tree of arrays (or shapes) as ShapeDtypeStructs, so sharded, to compile for.

    `sharding` is one sharding for all leaves, or a tree of them.
    """

    def one(leaf: Any, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: one(leaf, sharding), tree)
    return jax.tree.map(one, tree, sharding)


def place(tree: Any, sharding: Any) -> Any:
    """A tree of host arrays, the same in every process, put on the mesh.

    `sharding` is one NamedSharding for all leaves, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(leaf: Any, target: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, target, lambda index: host[index])

    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: put(leaf, sharding), tree)
    return jax.tree.map(put, tree, sharding)


def fetch(tree: Any) -> Any:
    """The whole arrays as numpy, on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def get(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if leaf.is_fully_replicated:
                return np.asarray(leaf.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(get, tree)


def of_first_process(array: np.ndarray) -> np.ndarray:
    """Process 0's array, on every process; all must give one of the same shape."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.broadcast_one_to_all(array), array.dtype)


def text_of_first_process(text: str) -> str:
    """Process 0's text, ASCII, on every process."""
    if jax.process_count() == 1:
        return text
    raw = np.frombuffer(text.encode("ascii"), np.uint8)
    length = int(of_first_process(np.array(len(raw), np.int64)))
    own = raw if jax.process_index() == 0 else np.zeros(length, np.uint8)
    return of_first_process(own).tobytes().decode("ascii")


def barrier(name: str) -> None:
    """Waits until every process is here; nothing to wait for in a single process."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
