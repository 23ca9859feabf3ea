"""Set before jax is imported: CPU, eight devices, offline hub, persistent compilation cache.

Hypothesis draws the same examples at each run; `HYPOTHESIS_PROFILE=search` draws new ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax_tests"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = flags.strip()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# In the environment, so that processes that tests start share the cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("search", derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs() -> Iterator[None]:
    """A file's programs are dropped after it: those of all files would take gigabytes."""
    yield
    import jax  # only now: what is set above must come first

    jax.clear_caches()
