"""Mesh extents, logical axes to mesh axes, the way on and off the mesh; on eight devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from distill_jax.core import sharding
from distill_jax.core.errors import MeshError
from distill_jax.core.sharding import MeshSettings

pytestmark = pytest.mark.mesh


def mesh_of(data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
    count = data * fsdp * tensor
    return sharding.make_mesh(MeshSettings(data, fsdp, tensor), jax.devices()[:count])


@pytest.mark.parametrize(
    ("settings", "devices", "shape"),
    [
        (MeshSettings(), 1, (1, 1, 1)),
        (MeshSettings(), 8, (8, 1, 1)),
        (MeshSettings(-1, 2, 2), 8, (2, 2, 2)),
        (MeshSettings(1, -1, 2), 8, (1, 4, 2)),
        (MeshSettings(2, 2, 2), 8, (2, 2, 2)),
    ],
)
def test_shape(settings: MeshSettings, devices: int, shape: tuple[int, int, int]) -> None:
    assert settings.shape(devices) == shape


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        (MeshSettings(3, 1, 1), 8),
        (MeshSettings(-1, 3, 1), 8),
        (MeshSettings(-1, -1, 1), 8),
        (MeshSettings(0, 1, 1), 8),
        (MeshSettings(16, 1, 1), 8),
        (MeshSettings(-1, 16, 1), 8),
        (MeshSettings(-1, 0, 1), 8),
    ],
)
def test_shape_that_does_not_fit_is_refused(settings: MeshSettings, devices: int) -> None:
    with pytest.raises(MeshError):
        settings.shape(devices)


def test_one_device_is_a_mesh_too() -> None:
    mesh = mesh_of(1, 1, 1)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert sharding.batch_shards(mesh) == 1


def test_partition_spec_follows_the_rules() -> None:
    mesh = mesh_of(1, 2, 4)
    spec = sharding.partition_spec
    assert spec(("layers", "embed", "heads"), (3, 64, 64), mesh) == P(None, "fsdp", "tensor")
    assert spec(("vocab", "embed"), (512, 64), mesh) == P("tensor", "fsdp")
    assert spec(("batch", None), (16, 5), mesh) == P(("data", "fsdp"), None)
    # 2 kv heads do not divide over 4: the axis stays whole.
    assert spec(("embed", "kv_heads"), (64, 2), mesh) == P("fsdp", None)
    # 63 does not divide over 2.
    assert spec(("embed", None), (63, 5), mesh) == P(None, None)
    # An extent of one is not split at all.
    assert spec(("embed", "mlp"), (64, 64), mesh_of(8, 1, 1)) == P(None, None)


def test_shardings_keep_the_tree() -> None:
    mesh = mesh_of(1, 2, 4)
    tree = {"a": np.zeros((8, 4)), "b": {"c": np.zeros((4,))}}
    axes = {"a": ("embed", "mlp"), "b": {"c": (None,)}}
    out = sharding.shardings(tree, axes, mesh)
    assert out["a"].spec == P("fsdp", "tensor") and out["b"]["c"].spec == P(None)


def test_place_and_fetch_are_inverse() -> None:
    mesh = mesh_of(2, 2, 2)
    tree = {"x": np.arange(24, dtype=np.float32).reshape(8, 3), "y": np.int32(4)}
    where = {"x": sharding.batch_sharding(mesh), "y": sharding.replicated(mesh)}
    placed = sharding.place(tree, where)
    assert placed["x"].sharding.is_equivalent_to(where["x"], 2)
    assert placed["x"].addressable_shards[0].data.shape == (2, 3)  # 8 rows over data×fsdp=4
    back = sharding.fetch(placed)
    np.testing.assert_array_equal(back["x"], tree["x"])
    assert back["y"] == 4
    one = sharding.place({"x": tree["x"]}, sharding.replicated(mesh))
    assert one["x"].addressable_shards[0].data.shape == (8, 3)


def test_check_batch_says_what_would_fit() -> None:
    mesh = mesh_of(2, 4, 1)
    sharding.check_batch("sft.batch_size", 16, mesh)
    with pytest.raises(MeshError) as error:
        sharding.check_batch("sft.batch_size", 12, mesh)
    assert "sft.batch_size=12 rows on a mesh with data×fsdp=8" in str(error.value)
    assert "set sft.batch_size to 8" in str(error.value)
    with pytest.raises(MeshError, match="set sft.batch_size to 8"):
        sharding.check_batch("sft.batch_size", 3, mesh)
