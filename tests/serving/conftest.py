"""A small random model of a directory, served."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_jax.serving import served as models
from distill_jax.serving.served import Served
from tests.serving.endpoint import Running, running
from tests.stages.hf import write_model


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Its completions are long: it hardly ever draws an end."""
    root: Path = tmp_path_factory.mktemp("served")
    write_model(root / "little", rows=320, noise=0.3, max_position_embeddings=4096)
    limits = models.Limits(prompt=100, new=3000)
    return models.of_directory(str(root / "little"), "", limits, "float32")


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[Running]:
    with running(served) as one:
        yield one
