"""The batch scripts: what they call, with which arguments, and the exit code that they pass on."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.test_compare import AFTER, BEFORE, evaluated

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
PRESET = "{PRESET}"
# Script -> what stands between `python -m` and the user's arguments.
CALLS = {
    "train": ["launch.main", f"--config=configs/rl.py:{PRESET}"],
    "evaluate": ["launch.main", f"--config=configs/evaluate.py:{PRESET}"],
    "evaluate_all": [
        "launch.main",
        f"--config=configs/evaluate.py:{PRESET}",
        "--config.evaluate.checkpoints=all",
    ],
    "export": ["launch.export_answers", f"--config=configs/rl.py:{PRESET}"],
    "compare": ["launch.compare"],
}
ARGUMENTS = ["--workdir=runs/a b", "--config.a=('x',)", "", "*", '"']

STUB = """#!{python}
import json, os, sys
print(json.dumps([os.getcwd(), sys.argv[1:]]))
sys.exit(7)
"""


def call(script: Path, folder: Path, *arguments: str, **env: str):
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    held = {k: v for k, v in os.environ.items() if k != "PRESET"}
    return subprocess.run(
        [str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**held, "PATH": path, **env},
    )


def test_every_script_is_listed_and_has_its_twin() -> None:
    for suffix in (".sh", ".bat"):
        assert {p.stem for p in LAUNCH.glob(f"*{suffix}")} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_bash_passes_arguments_and_exit_code(name: str, tmp_path: Path) -> None:
    script = LAUNCH / f"{name}.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    for env, preset in (({}, "tiny"), ({"PRESET": "smoke"}, "smoke")):
        done = call(script, tmp_path, *ARGUMENTS, **env)
        assert done.returncode == 7, done.stderr
        folder, argv = json.loads(done.stdout)
        assert folder == str(ROOT)
        assert argv == ["-m", *(a.replace(PRESET, preset) for a in CALLS[name]), *ARGUMENTS]


def test_bash_from_a_folder_with_blanks(tmp_path: Path) -> None:
    away = tmp_path / "a folder" / "launch"
    away.mkdir(parents=True)
    script = shutil.copy(LAUNCH / "compare.sh", away)
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    done = call(Path(script), tmp_path)
    assert json.loads(done.stdout) == [str(away.parent), ["-m", "launch.compare"]]


def test_bash_with_the_real_command(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a.json", BEFORE), evaluated(tmp_path / "b.json", AFTER)
    (tmp_path / "python").symlink_to(sys.executable)
    done = call(LAUNCH / "compare.sh", tmp_path, str(a), str(b), PYTHONPATH=":".join(sys.path))
    assert done.returncode == 0 and "right: both 2" in done.stdout, done.stderr
    done = call(LAUNCH / "compare.sh", tmp_path, str(a), PYTHONPATH=":".join(sys.path))
    assert done.returncode == 2 and "1 result named" in done.stderr


# --- cmd: there is no Windows here, so the text is read ------------------------------------------


def batch_lines(name: str) -> list[str]:
    text = (LAUNCH / f"{name}.bat").read_bytes().decode("ascii")
    assert text.endswith("\r\n") and "\n" not in text.replace("\r\n", "")
    return [line for line in text.split("\r\n") if line and not line.startswith("rem ")]


def bash_call(name: str) -> str:
    return (LAUNCH / f"{name}.sh").read_text().splitlines()[-1]


@pytest.mark.parametrize("name", CALLS)
def test_cmd_calls_what_bash_calls(name: str) -> None:
    lines = batch_lines(name)
    takes_preset = any(PRESET in argument for argument in CALLS[name])
    preset = ['if not defined PRESET set "PRESET=tiny"'] if takes_preset else []
    assert lines[:3] == ["@echo off", "setlocal", 'cd /d "%~dp0.." || exit /b 1']
    assert lines[3:-2] == preset
    # The last command's code is the script's, and nothing stands between the two.
    assert lines[-1] == "exit /b %ERRORLEVEL%"
    match = re.fullmatch(r"python -m (\S+)(.*) %\*", lines[-2])
    assert match is not None, lines[-2]
    arguments = [a.strip('"') for a in match[2].split()]
    assert [match[1], *(a.replace("%PRESET%", PRESET) for a in arguments)] == CALLS[name]
    as_bash = lines[-2].replace("%PRESET%", "${PRESET:-tiny}").replace("%*", '"$@"')
    assert bash_call(name) == f"exec {as_bash}"


def test_line_ends_are_kept_by_git() -> None:
    rules = (ROOT / ".gitattributes").read_text().splitlines()
    assert "*.bat text eol=crlf" in rules and "*.sh text eol=lf" in rules
    for name in CALLS:
        assert b"\r" not in (LAUNCH / f"{name}.sh").read_bytes()
        assert os.access(LAUNCH / f"{name}.sh", os.X_OK)
