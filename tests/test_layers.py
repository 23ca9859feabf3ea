"""The shape of the code: imports go down only, files and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    {"distill_jax.core"},
    {"distill_jax.kernels", "distill_jax.sandbox"},
    {"distill_jax.models", "distill_jax.data", "distill_jax.answers"},
    {"distill_jax.reasoning"},
    {"distill_jax.tasks"},
    {
        "distill_jax.training",
        "distill_jax.rollout",
        "distill_jax.rewards",
        "distill_jax.curriculum",
        "distill_jax.synthesis",
    },
    {"distill_jax.run"},
    {"distill_jax.forecast", "distill_jax.inference"},
    {"distill_jax.evaluation"},
    {"distill_jax.report", "distill_jax.serving"},
    {"distill_jax.stages", "distill_jax.handover"},
    {"distill_jax.experiments"},
    {"launch"},
    {"configs"},  # settings of a program of launch/ live beside it, so configs may import launch
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
SOURCES = sorted(
    path for top in ("distill_jax", "launch", "configs") for path in (ROOT / top).rglob("*.py")
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def package_of(module: str) -> str | None:
    """`distill_jax.kernels.gae` -> `distill_jax.kernels`; None outside the project."""
    parts = module.split(".")
    if parts[0] in ("launch", "configs"):
        return parts[0]
    return ".".join(parts[:2]) if parts[0] == "distill_jax" and len(parts) > 1 else None


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def violations(module: str, tree: ast.AST) -> list[str]:
    own = package_of(module)
    if own is None or own.endswith(".__init__"):
        return []
    wrong = []
    for name in imported(tree):
        other = package_of(name)
        if other is None or other == own:
            continue
        if other not in LEVEL:
            wrong.append(f"{module} imports {name}: {other} has no layer in this test")
        elif LEVEL[other] >= LEVEL[own]:
            wrong.append(f"{module} imports {name}: not from a layer below")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    package = package_of(name_of(path))
    if package is not None and not package.endswith(".__init__"):
        assert package in LEVEL, f"{package} has no layer: add it to LAYERS"
    assert violations(name_of(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 80, node.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_is_called_utils(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


def test_every_package_says_what_it_is() -> None:
    for folder in sorted({path.parent for path in SOURCES}):
        assert (folder / "__init__.py").is_file(), folder
        assert (folder / "README.md").is_file() or folder == ROOT / "distill_jax", folder


@pytest.mark.parametrize(
    ("module", "line", "count"),
    [
        ("distill_jax.kernels.gae", "from distill_jax.models import qwen", 1),
        ("distill_jax.models.qwen", "from distill_jax.data.chat import render_prompt", 1),
        ("distill_jax.models.qwen", "import distill_jax.stages", 1),
        ("distill_jax.core.rng", "from distill_jax import kernels", 1),
        ("distill_jax.training.step", "from distill_jax.training import losses", 0),
        ("distill_jax.training.step", "from distill_jax.kernels import gae; import jax", 0),
        ("launch.main", "from distill_jax.stages import pipeline", 0),
        ("launch.main", "import configs.rl", 1),
        ("configs.bench", "from launch.bench.steps import BenchSettings", 0),
    ],
)
def test_the_rule_itself(module: str, line: str, count: int) -> None:
    assert len(violations(module, ast.parse(line))) == count
