"""Prints what a run will hold on each device; reads no weights and needs no network.

    python -m launch.forecast --config=configs/rl.py:qwen_7b --devices=8

The devices need not be here. Models are known by hub id (models/released.py), by a local
directory's config.json, or by the settings where stage pretrain makes them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console

from distill_jax.core.errors import ConfigError, DistillError
from distill_jax.core.settings import build
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import released
from distill_jax.stages import forecast
from distill_jax.stages.pretrain import made_geometry
from distill_jax.stages.settings import ModelSettings, RunConfig
from launch import arguments
from launch.main import CONFIG

_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of the mesh.", lower_bound=1)
_DEVICE_GB = flags.DEFINE_float(
    "device_gb", None, "Memory of one device in units of 10⁹ bytes, to compare with."
)


def geometry(settings: ModelSettings, config: RunConfig) -> QwenConfig:
    """Of a model that need not be here.

    Raises:
        ConfigError: a path that is neither a known hub id nor a local directory.
    """
    if not settings.path:
        return made_geometry(settings, config, config.tokenizer_size)
    known = released(settings.path)
    if known is not None:
        return known
    if not Path(settings.path).expanduser().is_dir():
        raise ConfigError(
            f"path={settings.path!r}",
            wanted="a released Qwen2.5 or Qwen3 by hub id, or a directory with config.json",
        )
    return hf_io.load_config(Path(settings.path).expanduser())


def run(config: RunConfig, devices: int) -> list[forecast.Forecast]:
    """The forecasts of the stages sft and rl, those that the config has.

    Raises:
        ConfigError: it has neither, a model is not known, or the mesh does not fit the devices.
    """
    mesh = forecast.abstract_mesh(config, devices)
    teacher, student = geometry(config.teacher, config), geometry(config.student, config)
    stages = [stage for stage in ("sft", "rl") if stage in config.stages]
    if not stages:
        raise ConfigError(
            f"no forecast for stages={config.stages}",
            wanted="sft or rl: the others have none",
            fix="name a config that has them, e.g. configs/rl.py",
        )
    return [forecast.forecast(config, teacher, student, mesh, stage) for stage in stages]


def as_dict(found: forecast.Forecast) -> dict[str, Any]:
    """For JSON: bytes on each device."""
    parts = {part.name: part.bytes for part in found.parts}
    return {"stage": found.stage, "devices": found.devices, "parts": parts, "peak": found.peak}


def _main(argv: Sequence[str]) -> None:
    try:
        if len(argv) > 1:
            raise ConfigError(f"stray argument {argv[1]!r}")
        found = run(build(RunConfig, CONFIG.value), _DEVICES.value)
    except DistillError as error:
        arguments.fail(error)
    limit = int(_DEVICE_GB.value * forecast.GB) if _DEVICE_GB.value else None
    console = Console(stderr=True)
    for one in found:
        console.print(forecast.table(one, limit))
        said = forecast.warning(one, limit)
        if said:
            console.print(said, style="bold red", highlight=False, markup=False)
    print(json.dumps([as_dict(one) for one in found]))


def _parse(argv: Sequence[str]) -> list[str]:
    return arguments.parse(argv, RunConfig, "configs/rl.py:qwen_7b")


if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
