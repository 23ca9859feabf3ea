"""Prints what a run will hold on each device; reads no weights and needs no network.

    python -m launch.forecast --config=configs/rl.py:qwen_7b --devices=8

The devices need not be here. Models are known by hub id (models/released.py), by a local
directory's config.json, or by the settings where the run trains them.
"""

import json
from typing import Any

from absl import flags
from rich.console import Console

from distill_jax.core.errors import ConfigError
from distill_jax.forecast import limits, memory
from distill_jax.forecast.memory import Forecast
from distill_jax.run.config import RunConfig, build
from distill_jax.run.run import Stage
from distill_jax.stages.dry_run import job
from distill_jax.stages.runner import kind_of
from launch import arguments
from launch.main import CONFIG

_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of the mesh.", lower_bound=1)
_DEVICE_GB = flags.DEFINE_float(
    "device_gb", None, "Memory of one device in units of 10⁹ bytes, to compare with."
)


def run(config: RunConfig, devices: int) -> list[Forecast]:
    """The forecasts of the stages that have one.

    Raises:
        ConfigError: none has, a model is not known, or the mesh does not fit the devices.
    """
    made, found = job(config, memory.abstract_mesh(config, devices)), []
    for name in config.stages:
        stage = Stage(name, config.plan[name])
        if (parts := kind_of(stage).forecast) is not None:
            found.append(made.forecast(name, parts(made, stage.settings)))
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


def _job(guard: arguments.OneLine) -> None:
    del guard
    found = run(build(CONFIG.value), _DEVICES.value)
    limit = int(_DEVICE_GB.value * memory.GB) if _DEVICE_GB.value else None
    console = Console(stderr=True)
    for one in found:
        console.print(limits.table(one, limit))
        if warning := limits.warning(one, limit):
            console.print(warning, style="bold red", highlight=False, markup=False)
    print(json.dumps([as_dict(one) for one in found]))


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py:qwen_7b")
