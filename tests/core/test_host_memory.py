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
import resource, sys
import launch
import jax, jax.numpy as jnp
if sys.argv[1] == "returned":
    from distill_jax.core import host_memory
    jax.default_backend = lambda: "gpu"
    assert host_memory.return_freed_memory_unless_cpu()
w = jnp.ones((16, 16)) / 16
step = jax.jit(jax.grad(lambda x: jnp.sum(jnp.maximum(jnp.maximum(x @ w, 0) @ w, 0) ** 2)))
x = jnp.ones((655360, 16))  # 40 MiB, as is each temporary: glibc maps what is above 32
faults = []
for _ in range(16 if sys.argv[1] == "kept" else 5):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    step(x).block_until_ready()
faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
# The fewest, after two steps: now and then the heap still grows, for a few steps in a row.
print(min(b - a for a, b in zip(faults[2:], faults[3:])))
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
    # A temporary of 40 MiB is 10,240 pages. What returns its memory is as if never kept.
    kept, returned = map(faults_a_step, ("kept", "returned"))
    assert returned > 9_000
    assert kept < returned / 3
