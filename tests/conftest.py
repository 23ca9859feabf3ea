"""Set before jax is imported: CPU, offline hub, compilation; then the number of devices.

A test file runs on one device, or on eight where it says `pytestmark = pytest.mark.mesh`.

Most of the suite's time is compilation, so what makes it slow is off here (LLVM's costly passes,
the fusion emitters) and compiled programs are kept between runs. The smokes of `.ci/run` compile
as users do.

Hypothesis draws the same examples at each run; `HYPOTHESIS_PROFILE=search` draws new ones.
"""

import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

MEMORY = 2_500_000_000  # bytes of a worker; ru_maxrss is in KiB on Linux
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax_tests"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# In the environment, so that processes that tests start share the cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

gc.set_threshold(50_000, 20, 100)  # tracing makes many small objects that live on

hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("search", derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files on eight devices come last: each process changes the number once at most.

    Slow files come first, so that no worker is left with one when the others are done.
    """
    items.sort(key=lambda item: (_marked(item, "mesh"), not _marked(item, "slow")))


def _marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Gives a file its devices, before any fixture of whatever scope is made for it."""
    module = item.getparent(pytest.Module)
    wanted = 8 if module is not None and module.get_closest_marker("mesh") else 1
    assert (wanted == 8) == (item.get_closest_marker("mesh") is not None), (
        "mark whole files as mesh: the number of devices belongs to the process"
    )
    import jax  # only now: what is set above must come first
    from jax.extend import backend

    if jax.config.jax_num_cpu_devices != wanted:
        backend.clear_backends()
        jax.config.update("jax_num_cpu_devices", wanted)
        assert jax.device_count() == wanted


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs() -> Iterator[None]:
    """Compiled programs serve later files, until the process has taken MEMORY once.

    From then on a file's programs are dropped after it: those of all files take gigabytes.
    """
    yield
    import jax  # only now: what is set above must come first

    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY:
        jax.clear_caches()
