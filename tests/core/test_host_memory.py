"""Steps of a program reuse their pages: counted in page faults, each in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.core import host_memory

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import resource, statistics, sys
if sys.argv[1] != "never":
    import launch
import jax, jax.numpy as jnp
if sys.argv[1] == "returned":
    from distill_jax.core import host_memory
    jax.default_backend = lambda: "gpu"
    print(host_memory.return_freed_memory_unless_cpu(), file=sys.stderr)
w = jnp.ones((256, 256)) / 256
step = jax.jit(jax.grad(lambda x: jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w) ** 2)))
x = jnp.ones((40960, 256))  # 40 MiB, as is each temporary: glibc maps what is above 32
for _ in range(3):
    step(x).block_until_ready()
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in range(5):
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(statistics.median(b - a for a, b in zip(faults, faults[1:]))))
"""


def faults_a_step(how: str) -> int:
    command = [sys.executable, "-c", STEPS, how]
    one_device = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_device, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_freed_memory_is_kept_and_returned_again() -> None:
    if platform.libc_ver()[0] != "glibc":  # another C library: nothing can be set
        assert not host_memory.keep_freed_memory()
        return
    # A temporary of 40 MiB is 10,240 pages. A median: now and then the heap still grows.
    never, kept, returned = map(faults_a_step, ("never", "kept", "returned"))
    assert never > 9_000 and returned > 9_000
    assert kept < never / 3
