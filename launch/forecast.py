"""Prints what a run will hold on each device; reads no weights and needs no network.

    python -m launch.forecast --config=configs/rl.py:qwen_7b --devices=8
    python -m launch.forecast --config=configs/rl.py:qwen_1_5b --devices=8 --accelerator=tpu
    python -m launch.forecast --config=configs/rl.py:qwen_1_5b --compile=h100

The devices need not be here. With --compile the compiler, not a formula, gives the memory of
stages sft and rl; that takes minutes and needs the extra tpu or cuda12 (see launch.compile_check).
Shapes of models come from the hub id (distill_jax/models/released.py), from a local directory's
config.json, or from the settings if the run trains them.
"""

import json
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import AnyMesh
from distill_jax.forecast import by_compiler, compiled, limits
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.forecast.gpu_target import gpu_devices
from distill_jax.forecast.parts import GB, Forecast
from distill_jax.forecast.topology import tpu_devices
from distill_jax.run.config import RunConfig, build
from distill_jax.run.run import Stage
from distill_jax.stages.dry_run import job
from distill_jax.stages.runner import kind_of
from launch import arguments
from launch.main import CONFIG

_DEVICES = flags.DEFINE_integer("devices", 1, "Number of devices.", lower_bound=1)
_ACCELERATOR = flags.DEFINE_enum(
    "accelerator", "gpu", ["gpu", "tpu"], "Kind of the devices; --compile names it, too."
)
_DEVICE_GB = flags.DEFINE_float(
    "device_gb", None, "Memory of one device, 10⁹ bytes, to compare with the forecast."
)
_COMPILE = flags.DEFINE_string(
    "compile", None, "Compile for --devices GPUs (h100), or for a TPU slice (v5e:2x4)."
)


def run(
    config: RunConfig,
    devices: int,
    compile_for: list[jax.Device] | None = None,
    platform: str | None = None,
) -> list[Forecast]:
    """The forecasts of the stages that have one.

    platform: of the devices, as `Job` takes it.
    compile_for: as many devices, which need not be here; programs are compiled for them.

    Raises:
        ConfigError: none has, a model is not known, or the mesh does not fit the devices.
    """
    mesh: AnyMesh = sharding.abstract_mesh(config.mesh, devices)
    if compile_for is not None:
        mesh = sharding.make_mesh(config.mesh, compile_for)
    made, found = job(config, mesh, platform), []
    for name in config.stages:
        stage = Stage(name, config.plan[name])
        kind = kind_of(stage)
        if kind.forecast is None:
            continue
        one = made.forecast(name, kind.forecast(made, stage.settings))
        if isinstance(mesh, Mesh) and kind.programs is not None:
            shapes = made.geometries
            programs = Programs(config, shapes["teacher"], shapes["student"], mesh)
            planned = kind.programs(programs, stage.settings)
            one = by_compiler.replaced(one, compiled.each(name, planned))
        found.append(one)
    if not found:
        raise ConfigError(
            f"no forecast for stages={config.stages}",
            wanted="a stage whose kind has a forecast",
            fix="name a config that has one, e.g. configs/rl.py",
        )
    return found


def as_dict(found: Forecast) -> dict[str, Any]:
    """For JSON: bytes on each device."""
    parts = {part.name: part.bytes for part in found.parts}
    return {"stage": found.stage, "devices": found.devices, "parts": parts, "peak": found.peak}


def devices_of(name: str, count: int) -> list[jax.Device]:
    """So many GPUs of this name, or the chips of a TPU slice, however many.

    Raises:
        MissingExtraError: the compiler is not installed.
        ConfigError: the compiler does not know them.
    """
    return tpu_devices(name) if ":" in name else gpu_devices(name, count)


def _job(guard: arguments.OneLine) -> None:
    del guard
    count, compile_for = _DEVICES.value, None
    if _COMPILE.value:
        # An accelerator that is here would be taken otherwise.
        jax.config.update("jax_platforms", "cpu")
        compile_for = devices_of(_COMPILE.value, count)
        count = len(compile_for)
    platform = None if compile_for else _ACCELERATOR.value
    found = run(build(CONFIG.value), count, compile_for, platform)
    limit = int(_DEVICE_GB.value * GB) if _DEVICE_GB.value else None
    console = Console(stderr=True)
    for one in found:
        console.print(limits.table(one, limit))
        if warning := limits.warning(one, limit):
            console.print(warning, style="bold red", highlight=False, markup=False)
    print(json.dumps([as_dict(one) for one in found]))


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py:qwen_7b")
