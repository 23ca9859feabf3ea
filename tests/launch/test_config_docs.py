"""docs/config.md and docs/core.md are what the settings say."""

from dataclasses import dataclass, field

from distill_jax.core.settings import group, leaves, setting
from distill_jax.run.settings import Shared
from launch import config_docs


@dataclass(frozen=True)
class Part:
    """A part."""

    lr: float = setting(0.5, "Rate | of learning.", above=0.0, high=1.0)
    kind: str | None = setting(None, "Kind.", choices=("a", "b"))
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.", low=1, affects="rounding")


@dataclass(frozen=True)
class Whole:
    """All of it."""

    name: str = setting("", "Name.")
    part: Part = field(default_factory=Part)
    quiet: Part = group(Part, affects="nothing")


def test_render() -> None:
    lines = config_docs._group(Whole, Whole(), "", "The whole")
    assert lines[:3] == ["## The whole", "", "All of it."]
    assert "| `name` | str | empty |  | result | Name. |" in lines
    assert "## `part`" in lines and "A part." in lines
    assert r"| `part.lr` | float | `0.5` | > 0.0, ≤ 1.0 | result | Rate \| of learning. |" in lines
    assert "| `part.kind` | str or None | `None` | `a`, `b` | result | Kind. |" in lines
    assert "| `part.sizes` | tuple of int | `(1, 2)` | ≥ 1 | rounding | Sizes. |" in lines
    # What a whole group affects holds for each of its settings.
    assert "| `quiet.sizes` | tuple of int | `(1, 2)` | ≥ 1 | nothing | Sizes. |" in lines
    assert "| `quiet.kind` | str or None | `None` | `a`, `b` | nothing | Kind. |" in lines


def test_the_file_is_up_to_date() -> None:
    written = config_docs.TARGET.read_text(encoding="utf-8")
    assert written == config_docs.render(), "run: python -m launch.config_docs"
    core = config_docs.CORE_TARGET.read_text(encoding="utf-8")
    assert core == config_docs.render_core(), "run: python -m launch.config_docs"


def test_core_settings_have_the_rows_of_all_settings_and_none_twice() -> None:
    every = {line for line in config_docs.render().splitlines() if line.startswith("| `")}
    core = [line for line in config_docs.render_core().splitlines() if line.startswith("| `")]
    assert set(core) <= every and len(set(core)) == len(core)
    named = [name for names in config_docs.CORE.values() for name in names]
    assert [row.split("`")[1] for row in core] == named


def test_every_setting_has_a_doc() -> None:
    text = config_docs.render()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert all(row.split("|")[-2].strip() for row in rows)
    assert {"pretrain", "sft", "distill", "rl", "evaluate"} <= config_docs.built_in().keys()
    wanted = {name for name, _, _ in leaves(Shared())}
    for kind, cls in config_docs.built_in().items():
        wanted |= {f"{kind}.{name}" for name, _, _ in leaves(cls())}
    assert {row.split("`")[1] for row in rows} == wanted and len(rows) == len(wanted)
