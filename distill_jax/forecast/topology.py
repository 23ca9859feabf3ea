"""Devices of a TPU slice that is not here, for the compiler in libtpu to compile for."""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from distill_jax.core.errors import ConfigError, MissingExtraError

# Without them libtpu asks the cloud which slice this is, and refuses a second process.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def tpu_devices(name: str) -> list[jax.Device]:
    """The devices of a slice such as "v5e:2x4"; they compile and run nothing.

    Raises:
        MissingExtraError: libtpu is not installed.
        ConfigError: the compiler does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise MissingExtraError(
            "libtpu is not installed",
            wanted="the TPU compiler, which is in it",
            fix="pip install 'distill_jax[tpu]'",
        )
    form = re.fullmatch(r"\w+:\d+(x\d+)+", name)
    if form is None:
        raise ConfigError(f"topology {name!r}", wanted="generation:extents, e.g. v5e:2x4")
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    chips = math.prod(map(int, name.partition(":")[2].split("x")))
    how = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **how)
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"topology {name!r}: {said}", wanted="a TPU slice, e.g. v5e:2x4 or v5p:2x2x2"
        ) from error
    return list(found.devices)
