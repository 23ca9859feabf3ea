"""Settings that nothing reads: which are found, and what is said of them."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, find, off, refuse, said


@dataclass(frozen=True)
class Inner:
    UNREAD: ClassVar = (Unread(("rate",), ("shape", "on"), lambda shape, on: shape == "x" and on),)
    shape: str = setting("x", "Shape.")
    on: bool = setting(True, "Switch.")
    rate: float = setting(0.5, "Rate.")


@dataclass(frozen=True)
class Outer:
    UNREAD: ClassVar = (Unread(("inner", "size"), ("weight",), off),)
    weight: float = setting(1.0, "Weight.")
    size: int = setting(3, "Size.")
    sizes: int = setting(4, "Not size.")
    inner: Inner = field(default_factory=lambda: Inner(shape="y", rate=0.25))


def names(settings: object) -> list[str]:
    return [one.name for one in find(settings, "s.")]


def test_settings_at_their_defaults_are_never_found() -> None:
    assert names(Outer()) == names(Outer(weight=0.0)) == []
    # The default of a group is that of its field, not of its class.
    assert names(Outer(weight=0.0, inner=Inner())) == ["s.inner.shape", "s.inner.rate"]


def test_what_is_read_is_not_found() -> None:
    assert names(Outer(size=9, inner=Inner(rate=0.1, on=False))) == []
    # A name is not the beginning of another.
    assert names(Outer(weight=0.0, size=9, sizes=9)) == ["s.size"]


def test_a_group_has_a_table_of_its_own() -> None:
    (found,) = find(Outer(inner=Inner(rate=0.1)), "s.")
    assert found == ("s.inner.rate", 0.1, 0.25, "s.inner.shape='x' and s.inner.on=True")


def test_only_what_is_given_is_refused() -> None:
    found = find(Outer(weight=0.0, size=9), "s.")
    refuse(found, {"s.weight", "s.sizes"})
    with pytest.raises(ConfigError) as error:
        refuse(found, {"s.size"})
    assert str(error.value) == (
        "s.size=9 with s.weight=0.0; wanted: its default 3: nothing reads it then; "
        "fix: leave s.size out, or change s.weight=0.0"
    )
    with pytest.raises(ConfigError):
        refuse(found)
    assert said(found) == ["not read with s.weight=0.0: s.size=9"]
