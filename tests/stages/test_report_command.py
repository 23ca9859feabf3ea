"""launch.report on a finished run: from its records alone, and with its models."""

import json
import shutil
from pathlib import Path

import pytest

from distill_jax.report import run_data
from launch import report
from tests.stages.small import ROOT, copy_stages

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(report, "start_compilation_cache", lambda directory: None)


def test_from_records_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl", "evaluate", "report")
    shutil.copy(finished / "report.html", workdir)
    before = (workdir / "report.html").read_bytes()
    for models in ("pretrain/teacher/model", "pretrain/student/model", "sft/adapter", "rl/adapter"):
        shutil.rmtree(workdir / models)
    report.main(["--workdir", str(workdir)])
    assert capsys.readouterr().out == f"{workdir / 'report.html'}\n"
    after = (workdir / "report.html").read_bytes()
    # Written before stage evaluate was complete, and after.
    assert before != after and after.count(b'<span class="t t') > 50
    report.main([f"--workdir={workdir}"])
    assert (workdir / "report.html").read_bytes() == after


def test_a_run_without_evaluation(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    report.main(["--workdir", str(workdir)])
    text = (workdir / "report.html").read_text(encoding="utf-8")
    assert "No model was evaluated yet" in text and "No stage has logged a reward yet" in text
    assert "<figcaption>loss</figcaption>" in text


def test_with_problems_their_tokens_are_scored(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl", "evaluate")
    report.main([f"--workdir={workdir}", "--problems=2"])
    found = run_data.read_tokens(workdir)
    assert found is not None and len(found["problems"]) == 2
    text = (workdir / "report.html").read_text(encoding="utf-8")
    assert text.count('<article class="problem">') == 2
    said = json.loads(run_data.tokens_file(workdir).read_text(encoding="utf-8"))
    assert said == found
