"""docs/config.md is what the settings say."""

from dataclasses import dataclass, field

from distill_jax.core.settings import names, setting
from distill_jax.stages.settings import RunConfig
from launch import config_docs


@dataclass(frozen=True)
class Part:
    """A part."""

    lr: float = setting(0.5, "Rate | of learning.", above=0.0, high=1.0)
    kind: str | None = setting(None, "Kind.", choices=("a", "b"))
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.", low=1)


@dataclass(frozen=True)
class Whole:
    """All of it."""

    name: str = setting("", "Name.")
    part: Part = field(default_factory=Part)


def test_render() -> None:
    lines = config_docs.render(Whole).splitlines()
    assert "| `name` | str | empty |  | Name. |" in lines
    assert "## `part`" in lines and "A part." in lines
    assert r"| `part.lr` | float | `0.5` | > 0.0, ≤ 1.0 | Rate \| of learning. |" in lines
    assert "| `part.kind` | str or None | `None` | `a`, `b` | Kind. |" in lines
    assert "| `part.sizes` | tuple of int | `(1, 2)` | ≥ 1 | Sizes. |" in lines


def test_the_file_is_up_to_date() -> None:
    written = config_docs.TARGET.read_text(encoding="utf-8")
    assert written == config_docs.render(RunConfig), "run: python -m launch.config_docs"


def test_every_setting_has_a_doc() -> None:
    text = config_docs.render(RunConfig)
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert all(row.split("|")[-2].strip() for row in rows)
    assert {row.split("`")[1] for row in rows} <= set(names(RunConfig))
