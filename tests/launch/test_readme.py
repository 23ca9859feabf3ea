"""launch/README.md and the commands' own help name each other."""

import ast
import re
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
TEXT = (LAUNCH / "README.md").read_text()
COMMANDS = sorted(p.stem for p in LAUNCH.glob("*.py") if '__name__ == "__main__"' in p.read_text())


def test_every_file_is_listed() -> None:
    listed = set(re.findall(r"`(\w+\.py)`", TEXT))
    assert {p.name for p in LAUNCH.glob("*.py")} - {"__init__.py"} == listed
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    source = (LAUNCH / f"{name}.py").read_text()
    said = ast.get_docstring(ast.parse(source)) or ""
    assert f"python -m launch.{name}" in said
    # argparse shows it when told to; absl shows the docstring of the module that was called.
    assert "description=__doc__" in source or "app.run(" in source
