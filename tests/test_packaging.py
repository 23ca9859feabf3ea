"""What setup.py installs and asks for; no configs of another project."""

import ast
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import distill_jax

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of setup()."""
    given: dict[str, Any] = {}
    stub = types.ModuleType("setuptools")
    stub.setup = given.update
    stub.find_packages = lambda include: include
    monkeypatch.setitem(sys.modules, "setuptools", stub)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def requirements(texts: list[str], python: str) -> dict[str, Requirement]:
    """By name, those that hold on a version of Python."""
    found = [Requirement(text) for text in texts]
    held = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len({r.name for r in held}) == len(held)
    return {r.name: r for r in held}


def test_only_the_library_is_installed_under_one_version(package):
    assert package["packages"] == ["distill_jax*"]
    assert package["version"] == distill_jax.__version__
    assert "entry_points" not in package and "scripts" not in package


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", [None, "cuda12", "cuda13", "tpu"])
def test_no_jax_and_flax_that_do_not_fit_can_be_chosen(package, python, extra):
    texts = package["install_requires"] if extra is None else package["extras_require"][extra]
    jax = requirements(texts, python)["jax"].specifier
    flax = requirements(package["install_requires"], python)["flax"].specifier
    assert "0.10.2" in jax and "0.9.2" not in jax and "0.13" not in jax
    assert ("0.11.1" in jax) == (python != "3.11")
    # flax 0.12.8 does not import with jax 0.11.1.
    assert not ("0.11.1" in jax and "0.12.8" in flax)
    assert ("0.12.8" if python == "3.11" else "0.12.9") in flax and "0.13" not in flax


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_import_is_listed(package):
    texts = [*package["install_requires"], *sum(package["extras_require"].values(), [])]
    listed = {re.sub(r"[-_.]+", "-", Requirement(text).name).lower() for text in texts}
    files = [p for top in ("distill_jax", "launch", "configs") for p in (ROOT / top).rglob("*.py")]
    names = set.union(*map(imports, files)) - set(sys.stdlib_module_names)
    names -= {"distill_jax", "launch", "configs"}
    owners = importlib.metadata.packages_distributions()
    for name in names:
        # Not installed where tests run: the import's own name, e.g. wandb.
        known = owners.get(name, [name])
        assert {re.sub(r"[-_.]+", "-", x).lower() for x in known} & listed, name


def test_constraints_hold_what_setup_asks_for_and_name_no_host(package):
    text = (ROOT / "constraints.txt").read_text()
    lines = [x for x in text.splitlines() if x and not x.startswith("#")]
    pinned = {re.sub(r"[-_.]+", "-", Requirement(x).name).lower(): Requirement(x) for x in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    extras = package["extras_require"]
    for name, wanted in requirements(
        [*package["install_requires"], *extras["dev"], *extras["parity"], *extras["docs"]], "3.11"
    ).items():
        (version,) = pinned[re.sub(r"[-_.]+", "-", name).lower()].specifier
        assert wanted.specifier.contains(version.version), name


def test_configs_of_another_project_are_refused(tmp_path: Path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    (tmp_path / "configs" / "presets.py").write_text("raise SystemExit('the wrong presets')")
    command = [sys.executable, "-m", "launch.main", f"--config={ROOT / 'configs' / 'rl.py'}:smoke"]
    out = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    (line,) = out.stderr.strip().splitlines()
    assert out.returncode == 2 and line.startswith("ConfigError: the package configs is ")
    assert str(tmp_path / "configs") in line and f"start the command in {ROOT}" in line


def test_without_math_verify_the_extra_is_named():
    program = """
import sys
sys.modules["math_verify"] = None
from distill_jax.answers import library
assert not library.INSTALLED and "[math-verify]" in library.MISSING
"""
    # None in sys.modules makes the import raise ModuleNotFoundError, as if it were not installed.
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_citation_names_this_version_and_licence():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= said.keys()
    assert said["version"] == distill_jax.__version__
    assert said["license"] == "Apache-2.0"


def test_the_changelog_begins_with_this_version_or_the_next():
    numbers = re.findall(r"^## ([\d.]+) ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert distill_jax.__version__ in numbers[:2] and numbers == sorted(numbers, reverse=True)
