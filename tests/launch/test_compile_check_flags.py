"""Which slices can be compiled for, and what is said where the compiler is missing."""

import importlib.util

import pytest

from configs import presets
from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast.topology import tpu_devices
from launch import compile_check


def test_a_missing_compiler_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as found:
        tpu_devices("v5e:2x4")
    assert str(found.value) == (
        "libtpu is not installed; wanted: the TPU compiler, which is in it; "
        "fix: pip install 'distill_jax[tpu]'"
    )


@pytest.mark.parametrize("name", ["v5e", "2x4", "v5e:8", "v5e:2x4x", ""])
def test_a_topology_has_a_generation_and_extents(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"topology .* wanted: .*v5e:2x4"):
        tpu_devices(name)


def test_the_mesh_of_the_flag() -> None:
    config = presets.smoke()
    assert compile_check.mesh_of(["1", "4", "-1"], config) == MeshSettings(1, 4, -1)
    assert compile_check.mesh_of(None, config) == config.mesh
    for wrong in (["1", "8"], ["1", "8", "x"], ["1", "8", "1", "1"]):
        with pytest.raises(ConfigError, match=r"--mesh=.*wanted: data,fsdp,tensor"):
            compile_check.mesh_of(wrong, config)
