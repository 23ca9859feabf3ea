"""The notebooks of docs/ run from top to bottom, in order, in one directory as a reader would.

Cells are executed without Jupyter: one that begins with `!` is a command of the shell, which here
must succeed; others are Python.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT
from tests.stages.small import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PROGRAM = """
import subprocess, sys

def run(lines):
    if lines and lines[0].startswith("!"):
        subprocess.run("".join(lines)[1:], shell=True, check=True)
    else:
        exec("".join(lines), names)

names = {"__name__": "__main__"}
for lines in __import__("json").load(sys.stdin):
    run(lines)
"""


def cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like the repository's root; what one notebook made, the next finds."""
    root = tmp_path_factory.mktemp("notebooks")
    (root / "configs").symlink_to(ROOT / "configs")
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    return root


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, place: Path) -> None:
    if "peft" in path.stem and importlib.util.find_spec("peft") is None:
        pytest.skip("extra parity")
    env = environment()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([cell["source"] for cell in cells(path) if cell["cell_type"] == "code"]),
        cwd=place,
        env={
            **env,
            "PATH": f"{place / 'bin'}{os.pathsep}{env['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *filter(None, sys.path)])),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_form(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["cells"][0]["source"][0].startswith("# ")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            lines = [line.rstrip() for line in cell["source"]]
            assert not any(line.startswith("!") for line in lines[1:])
            assert all(x.endswith("\\") for x in lines[:-1]) or not lines[0].startswith("!")
    assert path.name in (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4
