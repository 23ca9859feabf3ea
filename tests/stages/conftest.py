from collections.abc import Sequence
from pathlib import Path

import jax
import pytest

from distill_jax.core import files
from distill_jax.report import figures
from distill_jax.stages import runner
from tests.stages.distilled import Trained
from tests.stages.small import small

# By number of devices: figures on eight round otherwise than on one.
_BEGUN: dict[int, Path] = {}
_FINISHED: dict[int, Path] = {}
_TRAINED: dict[int, Trained] = {}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot's file holds its description: drawing takes a third of a small run.

    `finished` is made before this and draws.
    """

    def png(plots: Sequence[figures.Plot], path: Path, legend: object = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, "\n".join(map(figures.describe, plots)))

    monkeypatch.setattr(figures, "png", png)
    monkeypatch.setattr(figures, "svg", figures.describe)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory in which every stage has run, in this process; copy it to change it."""
    devices = jax.device_count()
    if devices not in _FINISHED:
        workdir = tmp_path_factory.mktemp("finished")
        runner.run(small(checkpoint__every=1), workdir)
        _FINISHED[devices] = workdir
    return _FINISHED[devices]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with the models and the student of stage sft; copy it to change it."""
    devices = jax.device_count()
    if devices not in _BEGUN:
        _BEGUN[devices] = tmp_path_factory.mktemp("begun")
        runner.run(small(stages=("pretrain", "sft")), _BEGUN[devices])
    return _BEGUN[devices]


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Stage distill in each of its ways, next to the stages that it follows."""
    devices = jax.device_count()
    if devices not in _TRAINED:
        _TRAINED[devices] = Trained(finished, tmp_path_factory.mktemp("distilled"))
    return _TRAINED[devices]
