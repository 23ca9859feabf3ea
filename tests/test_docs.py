"""What the pages of docs/ say of settings and metrics holds; the pictures show what is there."""

import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from distill_jax.core import settings
from distill_jax.core.errors import ConfigError
from distill_jax.run.config import RunConfig, build
from distill_jax.run.given import refuse_ignored
from distill_jax.run.settings import Shared
from launch import config_docs, forecast
from tests.documents import ROOT, documents, spans, tables
from tests.test_layers import LAYERS

DOCS = ROOT / "docs"
ALGORITHMS = sorted((DOCS / "algorithms").glob("*.md"))
WRITTEN = [*ALGORITHMS, DOCS / "distillation.md", DOCS / "troubleshooting.md", DOCS / "papers.md"]
# Settings of every kind, and names of groups of them.
NAMES = {name for name, _, _ in settings.leaves(Shared())} | {
    f"{kind}.{name}"
    for kind, cls in config_docs.built_in().items()
    for name, _, _ in settings.leaves(cls())
}
GROUPS = {name.rpartition(".")[0] for name in NAMES}
# Metrics whose names are put together in the code.
BY_PARTS = r"rewards/(correctness|intrinsic|dense)/(mean|std)|eval/\w+|time/\w+|perf/…|time/…"
SOURCES = "\n".join(p.read_text("utf-8") for p in sorted((ROOT / "distill_jax").rglob("*.py")))


def give(config: str, given: str) -> RunConfig:
    """The settings `NAME=VALUE ...` on top of a config file, read as launch.main reads them.

    Raises:
        ConfigError, flags.Error: what launch.main refuses with one line.
    """
    words = ["main", f"--config={config}", *(f"--config.{word}" for word in shlex.split(given))]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    values(words)
    names = set(config_flags.get_override_values(values["config"]))
    read = build(values["config"].value)
    refuse_ignored(read, Path("none"), names)
    return read


def wrong_and_right() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(page, config, row) of each table of wrong and right settings."""
    for path in ALGORITHMS:
        (config,) = re.findall(r"Settings on top of `(\S+)`", path.read_text("utf-8"))
        for table in tables(path):
            if "wrong" in table[0]:
                yield from ((path.name, config, row) for row in table)


@pytest.mark.parametrize(
    ("page", "config", "row"),
    wrong_and_right(),
    ids=lambda x: x["wrong"] if isinstance(x, dict) else x,
)
def test_wrong_is_refused_where_it_says_so_and_right_is_not(
    page: str, config: str, row: dict[str, str]
) -> None:
    (wrong,), (right,) = spans(row["wrong"]), spans(row["right"])
    give(config, right)
    refused = row["what happens"].startswith("Refused")
    try:
        give(config, wrong)
    except ConfigError:
        assert refused, page
    else:
        assert not refused, page


def test_each_page_of_an_algorithm_has_both_tables() -> None:
    for path in ALGORITHMS:
        heads = [set(table[0]) for table in tables(path)]
        assert {"wrong", "what happens", "right"} in heads, path
        assert {"metric", "meaning", "in trouble"} in heads, path


def papers() -> list[tuple[str, str]]:
    """(config, settings) of each row of docs/papers.md."""
    rows = []
    for table in tables(DOCS / "papers.md"):
        for row in table:
            said = spans(row["settings"])
            config = (
                said.pop(0) if said and said[0].startswith("configs/") else "configs/rl.py:grpo"
            )
            rows.append((config, " ".join(said)))
    return rows


@pytest.mark.parametrize(("config", "given"), papers())
def test_settings_of_papers(
    config: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\w+\.jsonl", given):
        (tmp_path / name).touch()
    give(f"{ROOT / config}", given)


def forecasts() -> list[tuple[str, float]]:
    """(command, GB) of each row of docs/recipes.md that names a forecast."""
    rows = [row for table in tables(DOCS / "recipes.md") for row in table if "hardware" in row]
    said = [(row["command"], re.search(r"forecast ([\d.]+) GB", row["hardware"])) for row in rows]
    return [(spans(command)[0], float(found[1])) for command, found in said if found]


@pytest.mark.parametrize(("command", "gigabytes"), forecasts())
def test_forecasts_of_recipes(command: str, gigabytes: float) -> None:
    words = command.partition("--config=")[2].split()
    given = " ".join(word.removeprefix("--config.") for word in words[1:])
    if words[0].endswith(":smollm2"):  # its directory, which is not here, is of this geometry
        given += " student.path=HuggingFaceTB/SmolLM2-135M-Instruct"
    config = give(f"{ROOT / words[0]}", given)
    found = forecast.run(config, 8 if words[0].endswith(":qwen_7b") else 1)
    assert round(max(one.peak for one in found) / 1e9, 1) == gigabytes


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_settings_that_are_named_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    firsts = {name.partition(".")[0] for name in NAMES if "." in name}
    for span in re.findall(r"`([^`]+)`", text):
        for word in span.split():
            name = word.partition("=")[0]
            if name.partition(".")[0] in firsts and "." in name and "/" not in name:
                assert name in NAMES | GROUPS or name.startswith("bench."), (span, name)


@pytest.mark.parametrize("path", [*ALGORITHMS, DOCS / "troubleshooting.md"], ids=lambda p: p.name)
def test_metrics_that_are_named_are_logged(path: Path) -> None:
    names = [
        span for table in tables(path) for row in table for span in spans(row.get("metric", ""))
    ]
    assert names
    for name in names:
        known = f'"{name}"' in SOURCES or re.fullmatch(BY_PARTS, name)
        assert known, name


def test_the_picture_shows_every_package() -> None:
    tree = ElementTree.parse(DOCS / "architecture.svg")
    said = [text.text or "" for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    rows = [set(text.split(" · ")) for text in said]
    for layer in LAYERS:
        assert {name.rpartition(".")[2] for name in layer} in rows
    order = [rows.index({name.rpartition(".")[2] for name in layer}) for layer in LAYERS]
    assert order == sorted(order, reverse=True)


def test_every_page_is_in_the_navigation_and_nothing_is_fetched() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = {str(path.relative_to(DOCS)) for path in documents() if DOCS in path.parents}
    assert pages == set(re.findall(r"([\w/]+\.md)", text))
    assert "http" not in text and "font: false" in text
