"""Which slices can be compiled for, and what is said where the compiler is missing."""

import importlib.util

import pytest

from configs import presets
from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import gpu_target
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


def test_gpus_are_as_many_as_the_mesh_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compile_check, "gpu_devices", lambda name, count: [f"{name} {i}" for i in range(count)]
    )
    name, devices = compile_check.devices_of("cuda", "", "h100", MeshSettings(1, 4, 2))
    assert (name, len(devices)) == ("8 × h100", 8)
    with pytest.raises(ConfigError, match=r"--platform=cuda; wanted: three numbers .*--mesh=1,8,1"):
        compile_check.devices_of("cuda", "", "h100", MeshSettings(1, -1, 1))


def test_a_missing_gpu_compiler_and_an_unknown_gpu_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"target 'h99'; wanted: one of \['h100'\]"):
        gpu_target.gpu_devices("h99", 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"fix: pip install 'distill_jax\[cuda12\]'"):
        gpu_target.gpu_devices("h100", 1)


def test_a_target_is_in_the_text_that_the_compiler_reads() -> None:
    text = gpu_target.text(gpu_target.TARGETS["h100"])
    assert "core_count: 132\n" in text and text.count("{") == text.count("}")
    assert "major: 9 minor: 0 feature_extension" in text


def test_a_name_may_be_of_one_stage() -> None:
    only = ["score", "rl:update", "sft:segment"]
    assert compile_check._of_stage("rl", only) == {"score", "update"}
    assert compile_check._of_stage("sft", only) == {"score", "segment"}
    assert compile_check._of_stage("sft", ["rl:teacher scores"]) == set()
