"""How a model is built follows from the mesh that it goes to, and not from this process."""

import jax
import pytest
from jax.sharding import AbstractMesh

from distill_jax.core import sharding
from distill_jax.core.errors import MeshError
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.models import build
from distill_jax.run.settings import ModelSettings

# Width 32, four heads, two kv heads.
GEOMETRY = QwenConfig("qwen2", 64, 32, 64, 2, 4, 2, 8)


def made(mesh: sharding.AnyMesh, **settings: object) -> QwenModel:
    return build(ModelSettings(**settings), GEOMETRY, lora=None, mesh=mesh)


def abstract(data: int, fsdp: int, tensor: int) -> AbstractMesh:
    return AbstractMesh((data, fsdp, tensor), sharding.AXES)


def on_cpu() -> sharding.AnyMesh:
    return sharding.make_mesh(sharding.MeshSettings(1, 1, 1), jax.devices()[:1])


def test_layers_are_scanned_on_tpu_and_where_weights_are_gathered_or_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert made(on_cpu(), unroll=None, remat=True).unroll
    one, eight = abstract(1, 1, 1), abstract(1, 8, 1)
    assert made(one, unroll=None).unroll and not made(eight, unroll=None).unroll
    assert not made(one, unroll=None, remat=True).unroll
    assert made(eight, unroll=True, remat=True).unroll and not made(one, unroll=False).unroll
    monkeypatch.setattr(sharding, "platform", lambda mesh: "tpu")
    assert not made(one, unroll=None).unroll
    monkeypatch.setattr(sharding, "platform", lambda mesh: "cpu")
    assert made(eight, unroll=None).unroll


def test_attention_is_of_the_platform_of_the_mesh() -> None:
    assert made(on_cpu()).attends(8) == "products"
    assert made(abstract(1, 8, 1)).attends(8) == "xla"
    assert made(on_cpu(), attention="xla").attends(8) == "xla"
    assert QwenModel(GEOMETRY).attends(8) == "products"  # without a mesh: where tests run


def test_a_mesh_that_would_split_a_head_is_refused() -> None:
    made(abstract(1, 1, 2))
    with pytest.raises(MeshError, match="mesh.tensor=4 with a model of 2 kv heads; wanted: a div"):
        made(abstract(1, 2, 4))
