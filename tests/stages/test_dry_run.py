"""A dry run refuses what the run would refuse before its first stage, and writes nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError, DistillError
from distill_jax.run.run import Run
from distill_jax.stages import checks, dry_run
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
    said = "not read: no/teacher, no/student of the hub; so not checked: sft"
    assert said in one_line(capfd.readouterr().err)
    # A model of one stage alone.
    with Run(small(evaluate__model="no/model"), tmp_path / "run") as run:
        dry_run.show(run)
    said = "not read: no/model of the hub; so not checked: evaluate"
    assert said in one_line(capfd.readouterr().err)


def one_line(shown: str) -> str:
    return " ".join(shown.split())


def test_a_benchmark_of_the_hub_leaves_the_other_stages_checked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = {"evaluate__benchmark": "math500"}
    with Run(small(**how), tmp_path / "run") as run:
        dry_run.show(run)
    shown = one_line(capfd.readouterr().err)
    assert "not read: math500 of the hub; so not checked: evaluate" in shown
    assert "embedded, math500" not in shown  # it is not a split of the run's own problems
    with Run(small(rl__prompts_per_step=80, **how), tmp_path / "run") as run:
        with pytest.raises(DataError, match="64 training problems for rl.prompts_per_step"):
            dry_run.show(run)


def test_a_benchmark_in_a_file_is_no_name_of_the_hub(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    monkeypatch.chdir(tmp_path)
    config = small(stages=("evaluate",), evaluate__benchmark="sets/contest.jsonl")
    for refuse in (dry_run.show, checks.prepare):
        with Run(config, workdir) as run, pytest.raises(DataError, match="no such file"):
            refuse(run)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "contest.jsonl").write_text(
        '{"question": "What is 2 + 3?", "answer": "5"}\n'
    )
    with Run(config, workdir) as run:
        dry_run.show(run)
