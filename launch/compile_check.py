"""Compiles the programs of a plan's training stages for a TPU slice or GPUs that need not be here.

    pip install -e '.[tpu]'
    python -m launch.compile_check --config=configs/rl.py:smoke --topology=v5e:2x4 --mesh=1,8,1
    pip install -e '.[cuda12]'
    python -m launch.compile_check --config=configs/rl.py:smoke --platform=cuda \\
        --target=h100 --mesh=1,8,1

Programs are made from shapes alone and compiled by libtpu or by jax's CUDA plugin, which needs no
driver; no weights are read, nothing is run and no network is needed. The table and `--json` hold
compile seconds, memory, bytes read and written, FLOPs and the collectives of each program.
"""

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import compiled
from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.forecast.gpu_target import TARGETS, gpu_devices
from distill_jax.forecast.topology import tpu_devices
from distill_jax.run.config import RunConfig, build
from distill_jax.run.run import Stage
from distill_jax.stages.dry_run import job
from distill_jax.stages.runner import kind_of
from launch import arguments
from launch.main import CONFIG

_PLATFORM = flags.DEFINE_enum("platform", "tpu", ["tpu", "cuda"], "Compiler.")
_TARGET = flags.DEFINE_enum("target", "h100", sorted(TARGETS), "GPU to compile for (cuda).")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "TPU slice to compile for (tpu).")
_MESH = flags.DEFINE_list("mesh", None, "Sizes data,fsdp,tensor; default: the config's mesh.")
_ONLY = flags.DEFINE_list(
    "only",
    [],
    "Names of programs, e.g. score,rl:update (of stage rl); those of a sampler come together. "
    "Default: all.",
)
_JSON = flags.DEFINE_string("json", None, "File to write all figures to.")


def run(
    config: RunConfig, devices: list[jax.Device], mesh: MeshSettings, only: Collection[str] = ()
) -> Iterator[Compiled]:
    """Compiles the programs of all stages of the plan that have some, one after another.

    devices: to compile for; they need not be here. only: names of programs, see `Programs`; a
    name such as rl:update is of one stage.

    Raises:
        ConfigError: no stage has any, or a model is not known.
        MeshError: the mesh does not fit the devices.
    """
    over = sharding.make_mesh(mesh, devices)
    shapes = job(config, over).geometries
    empty = True
    for name in config.order:
        stage, names = Stage(name, config.plan[name]), _of_stage(name, only)
        planned = kind_of(stage).programs if names or not only else None
        if planned is not None:
            programs = Programs(config, shapes["teacher"], shapes["student"], over, names)
            for one in compiled.each(name, planned(programs, stage.settings)):
                empty = False
                yield one
    if empty:
        raise ConfigError(
            f"no programs for the plan {config.order}, only={sorted(only)}",
            wanted="a stage of kind sft, distill or rl, and names of its programs",
        )


def _of_stage(stage: str, only: Collection[str]) -> set[str]:
    """The names that are of this stage or of all."""
    split = [name.rpartition(":") for name in only]
    return {name for of, _, name in split if of in ("", stage)}


def mesh_of(values: list[str] | None, config: RunConfig) -> MeshSettings:
    """The mesh of the flag, else the config's.

    Raises:
        ConfigError: not three whole numbers.
    """
    if values is None:
        return config.mesh
    try:
        data, fsdp, tensor = map(int, values)
    except ValueError as error:
        got = f"--mesh={','.join(values)}"
        raise ConfigError(got, wanted="data,fsdp,tensor, e.g. 1,8,1") from error
    return MeshSettings(data, fsdp, tensor)


def devices_of(
    platform: str, topology: str, target: str, mesh: MeshSettings
) -> tuple[str, list[jax.Device]]:
    """What to compile for, in words, and its devices: a TPU slice, or as many GPUs as the mesh has.

    Raises:
        MissingExtraError: the compiler is not installed.
        ConfigError: the compiler does not know the slice or the GPU, or a GPU's mesh is left open.
    """
    if platform == "tpu":
        return topology, tpu_devices(topology)
    extents = (mesh.data, mesh.fsdp, mesh.tensor)
    if min(extents) < 1:
        raise ConfigError(
            f"mesh {extents} with --platform=cuda",
            wanted="three numbers from 1, whose product is the number of GPUs",
            fix="--mesh=1,8,1",
        )
    count = math.prod(extents)
    return f"{count} × {target}", gpu_devices(target, count)


def _job(guard: arguments.OneLine) -> None:
    del guard
    # An accelerator that is here would be taken otherwise.
    jax.config.update("jax_platforms", "cpu")
    config = build(CONFIG.value)
    mesh = mesh_of(_MESH.value, config)
    name, devices = devices_of(_PLATFORM.value, _TOPOLOGY.value, _TARGET.value, mesh)
    found: list[Compiled] = []
    for one in run(config, devices, mesh, _ONLY.value):
        Console(stderr=True).print(f"{one.stage}: {one.name}: {one.seconds:.1f} s")
        found.append(one)
        if _JSON.value:  # after each: the next may take many minutes
            content = {"topology": name, "programs": [compiled.as_dict(x) for x in found]}
            arguments.write_json(Path(_JSON.value), content)
    extents = "×".join(str(n) for n in mesh.shape(len(devices)))
    title = f"{config.preset} on {name}, data×fsdp×tensor {extents}"
    for table in compiled.tables(found, title):
        Console().print(table)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py:smoke")
