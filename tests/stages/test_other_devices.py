"""Commands that read a run whose mesh does not fit the devices at hand, and say so."""

import json
from pathlib import Path

import pytest

from distill_jax.core.files import CONFIG_FILE, read_json, write_json
from distill_jax.run.workdir import config_here, config_of
from launch import compare_logits, export_model, report
from tests.stages.small import copy_stages, small

pytestmark = pytest.mark.slow

SAID = "on 1 devices, as the run had it: each device holds the whole weights instead"


@pytest.fixture
def elsewhere(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run as if six devices had made it."""
    for command in (export_model.main_job, compare_logits.main_job, report):
        monkeypatch.setattr(command, "start_compilation_cache", lambda directory: None)
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl", "evaluate")
    found = read_json(workdir / CONFIG_FILE)
    mesh = {"data": 2, "fsdp": 3, "tensor": 1}
    write_json(workdir / CONFIG_FILE, {**found, "mesh": mesh})
    return workdir


def test_what_the_config_becomes(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (config_of(elsewhere).mesh.data, config_of(elsewhere).mesh.fsdp) == (2, 3)
    before = (elsewhere / CONFIG_FILE).read_bytes()
    assert config_here(elsewhere) == small(checkpoint__every=1)
    assert capsys.readouterr().err.count(SAID) == 1
    assert (elsewhere / CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_exports(
    finished: Path, elsewhere: Path, tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for workdir, name in ((finished, "here"), (elsewhere, "there")):
        (tmp_path / name).mkdir()
        export_model.main([f"--workdir={workdir}", f"--{form}={tmp_path / name / 'rl'}"])
    assert capfd.readouterr().err.count(SAID) == 1
    files = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert files
    for path in files:
        if path.suffix in ("", ".safetensors"):
            other = tmp_path / "there" / path.relative_to(tmp_path / "here")
            assert path.read_bytes() == other.read_bytes()


def test_pairs_and_scored_tokens(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare_logits.main([f"--workdir={elsewhere}"])
    assert SAID in capsys.readouterr().err
    found = json.loads((elsewhere / "compare_logits" / "rl.json").read_text())
    measured = json.loads((elsewhere / "evaluate" / "rl.json").read_text())["distribution"]
    for name, interval in measured.items():
        assert found["pairs"][1][name] == pytest.approx(interval, rel=1e-6), name
    report.main([f"--workdir={elsewhere}", "--problems=1"])
    assert SAID in capsys.readouterr().err and (elsewhere / "report.html").is_file()
