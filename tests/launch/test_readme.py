"""launch/README.md and the commands' own help name each other."""

import ast
import re
import runpy
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
# It says so when it is started.
NO_COMMAND = "experiment.py"
COMMANDS = sorted(
    ".".join(p.relative_to(LAUNCH).with_suffix("").parts).removesuffix(".__main__")
    for p in LAUNCH.rglob("*.py")
    if '__name__ == "__main__"' in p.read_text() and p.name != NO_COMMAND
)


@pytest.mark.parametrize("folder", [LAUNCH, LAUNCH / "bench"])
def test_every_file_is_listed(folder: Path) -> None:
    listed = set(re.findall(r"`(\w+\.py)`", (folder / "README.md").read_text()))
    assert {p.name for p in folder.glob("*.py")} - {"__init__.py"} == listed
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    path = LAUNCH / name.replace(".", "/")
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    source = file.read_text()
    said = ast.get_docstring(ast.parse(source)) or ""
    assert f"python -m launch.{name}" in said
    # argparse shows it when told to; absl shows the docstring of the module that was called.
    assert "__doc__" in source or "run_app(" in source


def test_the_part_that_looks_like_a_command_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(LAUNCH / NO_COMMAND), run_name="__main__")
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert "launch.experiment is a part of launch.main; fix: python -m launch.main" in said
