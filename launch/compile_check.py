"""Compiles the programs of a plan's training stages for a TPU slice that need not be here.

    pip install -e '.[tpu]'
    python -m launch.compile_check --config=configs/rl.py:smoke --topology=v5e:2x4 --mesh=1,8,1

Programs are made from shapes alone and compiled by libtpu; no weights are read, nothing is run and
no network is needed. The table and `--json` hold compile seconds, memory, FLOPs and the
collectives of each program.
"""

from collections.abc import Callable, Collection
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
from distill_jax.forecast.topology import tpu_devices
from distill_jax.run.config import RunConfig, build
from distill_jax.run.run import Stage
from distill_jax.stages.dry_run import job
from distill_jax.stages.runner import kind_of
from launch import arguments
from launch.main import CONFIG

_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "TPU slice to compile for.")
_MESH = flags.DEFINE_list("mesh", None, "Extents data,fsdp,tensor; without: the config's mesh.")
_ONLY = flags.DEFINE_list(
    "only", [], "Names of programs, e.g. score,update; a sampler's come together. Without: all."
)
_JSON = flags.DEFINE_string("json", None, "File to write all figures to.")


def run(
    config: RunConfig,
    topology: str,
    mesh: MeshSettings,
    only: Collection[str] = (),
    said: Callable[[str], None] = lambda line: None,
) -> list[Compiled]:
    """The compiled programs of all stages of the plan that have some.

    only: see `Programs`; said: called with a line for each compiled program.

    Raises:
        MissingExtraError: libtpu is not installed.
        ConfigError: no stage has any, or the topology or a model is not known.
        MeshError: the mesh does not fit the topology.
    """
    devices = tpu_devices(topology)
    over = sharding.make_mesh(mesh, devices)
    shapes = job(config, over).geometries
    programs = Programs(config, shapes["teacher"], shapes["student"], over, only)
    found: list[Compiled] = []
    for name in config.order:
        stage = Stage(name, config.plan[name])
        if (planned := kind_of(stage).programs) is not None:
            for one in compiled.each(name, planned(programs, stage.settings)):
                said(f"{one.stage}: {one.name}: {one.seconds:.1f} s")
                found.append(one)
    if not found:
        raise ConfigError(
            f"no programs for the plan {config.order}, only={sorted(only)}",
            wanted="a stage of kind sft, distill or rl, and names of its programs",
        )
    return found


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


def _job(guard: arguments.OneLine) -> None:
    del guard
    jax.config.update("jax_platforms", "cpu")  # a TPU that is here would be taken otherwise
    config = build(CONFIG.value)
    mesh = mesh_of(_MESH.value, config)
    found = run(config, _TOPOLOGY.value, mesh, _ONLY.value, Console(stderr=True).print)
    extents = "×".join(str(n) for n in mesh.shape(len(tpu_devices(_TOPOLOGY.value))))
    title = f"{config.preset} on {_TOPOLOGY.value}, data×fsdp×tensor {extents}"
    for table in compiled.tables(found, title):
        Console().print(table)
    if _JSON.value:
        content = {"topology": _TOPOLOGY.value, "programs": [compiled.as_dict(x) for x in found]}
        arguments.write_json(Path(_JSON.value), content)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py:smoke")
