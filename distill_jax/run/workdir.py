"""Checks of a work directory's place."""

import os
from pathlib import Path

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local


def check_workdir(workdir: Path) -> None:
    """Makes the work directory, if files can be made there.

    Raises:
        ConfigError: it, or a folder above it, is a file or may not be written to.
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
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # e.g. a file system that takes no files, whatever its modes say
        raise ConfigError(f"--workdir={workdir}: {error.strerror}", fix="choose another") from error
