"""A dry run refuses what the run would refuse before its first stage, and writes nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError, DistillError
from distill_jax.run.run import Run
from distill_jax.stages import dry_run
from tests.stages.small import copy_stages, small

pytestmark = pytest.mark.slow


def files(workdir: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


def test_an_empty_directory_stays_empty(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Run(small(), tmp_path / "run") as run:
        dry_run.show(run)
    shown = capfd.readouterr().err
    assert all(name in shown for name in ("pretrain", "sft", "rl", "evaluate"))
    assert shown.count(" due ") == 4 and not (tmp_path / "run").exists()


def test_stages_that_are_read_are_shown_and_checked(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    before = files(workdir)
    with Run(small(stages=("rl",)), workdir) as run:
        dry_run.show(run)
    shown = capfd.readouterr().err
    assert shown.count(" complete ") == 2 and shown.count(" due ") == 1
    with Run(small(stages=("rl",), sft__steps=9), workdir) as run:
        with pytest.raises(ConfigError, match=r"sft was made with sft.steps=2, now 9"):
            dry_run.show(run)
    assert files(workdir) == before


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"sft__accumulate": 3}, ConfigError, "sft.batch_size=8 in accumulate=3 microbatches"),
        ({"rl__prompts_per_step": 80}, DataError, "64 training problems for rl.prompts_per_step"),
        ({"data__max_prompt_tokens": 3}, DataError, "prompts are longer than 3 tokens"),
    ],
)
def test_checks_of_kinds_and_data(
    tmp_path: Path, changes: dict[str, Any], kind: type[DistillError], message: str
) -> None:
    with Run(small(**changes), tmp_path / "run") as run, pytest.raises(kind, match=message):
        dry_run.show(run)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").write_text("mine")
    with Run(small(), tmp_path / "run") as run, pytest.raises(ConfigError, match="is a file"):
        dry_run.show(run)


def test_what_would_be_downloaded_is_not_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small(stages=("sft",), teacher__path="no/teacher", student__path="no/student")
    with Run(dataclasses.replace(config), tmp_path / "run") as run:
        dry_run.show(run)
    assert "not checked: no/teacher, no/student of the hub" in capfd.readouterr().err
