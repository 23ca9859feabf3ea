"""Commands that read a run whose mesh does not fit the devices at hand, and say so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.core.files import CONFIG_FILE, read_json, write_json
from distill_jax.run.workdir import config_here, config_of
from launch import compare_logits, export_model, report
from tests.stages.small import ROOT, copy_stages, environment, small

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


QUESTION = "Tom has 5 pens and buys 3. How many pens has he now?"
SOLVED = {"id": "q", "question": QUESTION, "answer": "8", "text": "5 + 3 = 8\n#### 8"}
COMMANDS = {
    "chat": (),
    "solve": ("--n=2", "--json", QUESTION),
    "export_answers": ("--limit=1", "--model=rl"),
    "synthesise": ("--json", "--questions=solved.jsonl", "--answers=solved.jsonl"),
}


def command(name: str, workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (workdir / "solved.jsonl").write_text(json.dumps(SOLVED) + "\n")
    given = [word.replace("=solved", f"={workdir}/solved") for word in (*COMMANDS[name], *more)]
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", f"--workdir={workdir}", *given],
        cwd=ROOT, env=environment(), input=f"{QUESTION}\n", capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_share_the_flags_of_main(elsewhere: Path, name: str) -> None:
    made = command(name, elsewhere)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count(SAID) == 1


def test_a_mesh_of_the_command_line_is_not_replaced(elsewhere: Path) -> None:
    made = command("chat", elsewhere, "--config.mesh.fsdp=2")
    assert made.returncode == 2
    assert made.stderr.startswith("MeshError: ") and SAID not in made.stderr
