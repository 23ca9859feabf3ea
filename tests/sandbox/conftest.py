"""One sandbox for all tests that do not need their own."""

from collections.abc import Iterator

import pytest

from distill_jax.sandbox import Layers, Limits, Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_s=10.0, cpu_s=5.0)) as shared:
        yield shared


@pytest.fixture(scope="session")
def hasty() -> Iterator[Sandbox]:
    """Short limits."""
    with Sandbox(limits=Limits(wall_s=0.6, cpu_s=0.3, output_bytes=1000)) as shared:
        yield shared


@pytest.fixture(scope="session")
def unchecked() -> Iterator[Sandbox]:
    """Without the policy: the boundary is alone."""
    with Sandbox(layers=Layers(syntax=False)) as shared:
        yield shared
