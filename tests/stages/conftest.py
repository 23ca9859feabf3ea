from pathlib import Path

import pytest

from distill_jax.stages import runner
from tests.stages.distilled import Trained
from tests.stages.small import small


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory in which every stage has run, in this process."""
    workdir = tmp_path_factory.mktemp("finished")
    runner.run(small(), workdir)
    return workdir


@pytest.fixture(scope="session")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Stage distill in each of its ways, beside the stages that it follows."""
    return Trained(finished, tmp_path_factory.mktemp("distilled"))
