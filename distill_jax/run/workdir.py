"""A work directory: checks of its place, and the config that it knows."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from distill_jax.core.errors import ConfigError, DataError, MeshError
from distill_jax.core.files import CONFIG_FILE, check_local, read_json
from distill_jax.core.sharding import MeshSettings
from distill_jax.run.config import RunConfig, build, to_dict


def check_workdir(workdir: Path, *, make: bool = True) -> None:
    """Makes the work directory, if files can be made there; make: False only checks.

    Raises:
        ConfigError: it, or a folder above it, is a file or may not be written to; it holds a
            model, whose config.json a run would replace.
    """
    check_local(workdir, "--workdir")
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"--workdir={workdir}: {place} is a file", wanted="a directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--workdir={workdir}: no permission to write in {place}", fix="choose another"
        )
    found = read_json(workdir / CONFIG_FILE) if workdir.is_dir() else None
    if found is not None and not (isinstance(found, dict) and "plan" in found):
        raise ConfigError(
            f"--workdir={workdir}: its {CONFIG_FILE} is none of a run, but e.g. of a model",
            wanted="a work directory, or a new one",
            fix="name another directory",
        )
    try:
        if make:
            workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # e.g. a file system that takes no files, whatever its modes say
        raise ConfigError(f"--workdir={workdir}: {error.strerror}", fix="choose another") from error


@contextlib.contextmanager
def made_workdir(workdir: Path) -> Iterator[None]:
    """`check_workdir`; a directory that was made by it is removed at the end if it is empty."""
    there = workdir.exists()
    check_workdir(workdir)
    try:
        yield
    finally:
        if not there:
            with contextlib.suppress(OSError):  # not empty, or another process removed it
                workdir.rmdir()


def config_to_save(config: RunConfig, workdir: Path) -> dict[str, Any]:
    """The flat config for config.json: a start that only makes results changes no other stage."""
    flat, saved = to_dict(config), read_json(workdir / CONFIG_FILE) or {}
    plan, kinds = saved.get("plan", ()), {config.plan[name].makes for name in config.stages}
    new = [name for name in config.plan if name not in plan]
    if plan and kinds == {"results"} and all(config.plan[n].makes == "results" for n in new):
        flat |= {n: saved[n] for n in ("stages", *plan) if n not in config.stages}
        flat["plan"] = [*plan, *(name for name in new if name in config.stages)]
        flat = {n: value for n, value in flat.items() if n in flat["plan"] or n not in config.plan}
    return flat


def config_of(workdir: Path) -> RunConfig:
    """The config that a work directory was last run with.

    Raises:
        DataError: it has none.
        ConfigError: it holds settings that this version does not know.
    """
    found = read_json(workdir / CONFIG_FILE)
    if found is None:
        raise DataError(
            f"no {CONFIG_FILE} in {workdir}",
            wanted="the work directory of a run",
            fix="give it by --workdir, or name a config by --config",
        )
    return build(found)


def config_here(workdir: Path) -> RunConfig:
    """`config_of`, changed by `on_devices_here`."""
    return on_devices_here(config_of(workdir))


def on_devices_here(config: RunConfig) -> RunConfig:
    """The config; where its mesh does not fit the devices at hand, each holds the whole weights.

    For commands that read what a run has made. Standard error says that the mesh is another.
    """
    try:
        config.mesh.shape(jax.device_count())
    except MeshError as error:
        how = "as the run had it: each device holds the whole weights instead"
        if jax.process_index() == 0:
            print(f"{error.message}, {how}", file=sys.stderr, flush=True)
        return dataclasses.replace(config, mesh=MeshSettings())
    return config
