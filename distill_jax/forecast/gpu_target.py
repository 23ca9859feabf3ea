"""Devices of NVIDIA GPUs that are not here, for the compiler of jax's CUDA plugin to compile for.

The compiler asks for a `GpuTargetConfigProto` in protobuf's text format. Its numbers are what CUDA
reports of such a GPU (cudaDeviceProp), read from XLA's h100_sxm.txtpb (commit 0774019); the names
of the fields are those of XLA's stream_executor/device_description.proto as jax 0.10.2 has it.
"""

import importlib.util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from distill_jax.core.errors import ConfigError, MissingExtraError

_PLUGIN = "jax_plugins.xla_cuda12"
# Of the libraries that such a machine would have; those of the wheels of jax 0.10.2 are no older.
_CUDA, _CUDNN = "12.9.0", (9, 10, 0)


class Target(NamedTuple):
    """What the compiler asks of a GPU.

    Attributes:
        name: by CUDA.
        capability: major and minor compute capability; its own features (sm_90a) are used.
        cores: streaming multiprocessors.
        memory: bytes.
        bandwidth: of memory, bytes a second.
        l2: bytes of cache.
        clock_ghz: the highest.
        shared_per_core, shared_per_block: bytes of shared memory; of a block that opts in.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    memory: int
    bandwidth: int
    l2: int
    clock_ghz: float
    shared_per_core: int
    shared_per_block: int


TARGETS = {
    "h100": Target(
        "NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        cores=132,
        memory=84_942_979_072,
        bandwidth=3_352_320_000_000,
        l2=50 * 2**20,
        clock_ghz=1.98,
        shared_per_core=228 * 2**10,
        shared_per_block=227 * 2**10,
    ),
}


def gpu_devices(name: str, count: int) -> list[jax.Device]:
    """So many devices of one host with this GPU; they compile and run nothing.

    Raises:
        MissingExtraError: jax's CUDA plugin is not installed.
        ConfigError: a GPU that `TARGETS` does not have, or that the compiler refuses.
    """
    if name not in TARGETS:
        raise ConfigError(f"target {name!r}", wanted=f"one of {sorted(TARGETS)}")
    if not _installed():
        raise MissingExtraError(
            "jax_plugins.xla_cuda12 is not installed",
            wanted="the GPU compiler, which is in it",
            fix="pip install 'distill_jax[cuda12]'",
        )
    how: dict[str, Any] = {"target_config": text(TARGETS[name]), "topology": f"1x1x{count}"}
    try:
        found = topologies.get_topology_desc(name, "cuda", **how)
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"target {name!r}: {said}", wanted="one that XLA accepts") from error
    return list(found.devices)


def text(target: Target) -> str:
    """The target as a GpuTargetConfigProto in protobuf's text format."""
    major, minor = target.capability
    of_all = {
        "threads_per_warp": 32,
        "threads_per_block_limit": 1024,
        "threads_per_core_limit": 2048,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "shared_memory_per_block": 48 * 2**10,
        "fpus_per_core": 128,
        "device_address_bits": 64,
    }
    own = {
        "core_count": target.cores,
        "clock_rate_ghz": target.clock_ghz,
        "memory_bandwidth": target.bandwidth,
        "device_memory_size": target.memory,
        "l2_cache_size": target.l2,
        "shared_memory_per_core": target.shared_per_core,
        "shared_memory_per_block_optin": target.shared_per_block,
        "name": f'"{target.name}"',
        "device_vendor": '"NVIDIA Corporation"',
        "driver_version": f'"{_CUDA}"',
        "runtime_version": f'"{_CUDA}"',
        "compile_time_toolkit_version": f'"{_CUDA}"',
        "dnn_version": f'"{".".join(map(str, _CUDNN))}"',
    }
    fields = "\n".join(f"  {field}: {value}" for field, value in {**of_all, **own}.items())
    capability = f"major: {major} minor: {minor} feature_extension: ACCELERATED_FEATURES"
    dnn = "major: {} minor: {} patch: {}".format(*_CUDNN)
    return (
        f"gpu_device_info {{\n{fields}\n  cuda_compute_capability {{ {capability} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ {dnn} }}\n'
        f'device_description_str: "{target.name}"\n'
    )


def _installed() -> bool:
    try:
        return importlib.util.find_spec(_PLUGIN) is not None
    except ModuleNotFoundError:  # no plugin of jax at all
        return False
