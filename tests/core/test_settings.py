"""Settings: conversion to ConfigDict and back, and every refusal with its message."""

from dataclasses import dataclass, field

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import (
    affecting,
    build,
    check_name,
    group,
    leaves,
    names,
    references,
    setting,
    to_config_dict,
    to_dict,
)


@dataclass(frozen=True)
class Inner:
    lr: float = setting(1e-3, "Rate.", above=0.0, high=1.0)
    whole: float = setting(1, "An int default of a float setting.")
    steps: int = setting(10, "Steps.", low=1)
    name: str | None = setting(None, "Name.")
    kind: str = setting("a", "Kind.", choices=("a", "b"))
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.", low=1)
    kinds: tuple[str, ...] = setting(("a",), "Kinds.", choices=("a", "b"))

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise ConfigError("steps=13", wanted="another", fix="use 12")


@dataclass(frozen=True)
class Outer:
    on: bool = setting(True, "Switch.")
    inner: Inner = field(default_factory=Inner)


def test_round_trip_through_config_dict() -> None:
    config = Outer(on=False, inner=Inner(lr=0.5, name="x", sizes=(3,)))
    assert build(Outer, to_config_dict(config)) == config
    assert build(Outer, to_config_dict(Outer())) == Outer()


@given(
    lr=st.floats(min_value=1e-6, max_value=1.0),
    steps=st.integers(min_value=14, max_value=10**6),
    sizes=st.lists(st.integers(min_value=1, max_value=99), max_size=4),
    name=st.none() | st.text(max_size=5),
)
def test_round_trip_of_any_legal_values(
    lr: float, steps: int, sizes: list[int], name: str | None
) -> None:
    config = Outer(inner=Inner(lr=lr, steps=steps, sizes=tuple(sizes), name=name))
    assert build(Outer, to_config_dict(config)) == config
    assert build(Outer, to_dict(config)) == config


def test_none_stays_overridable_and_float_takes_fractions() -> None:
    config = to_config_dict(Outer())
    config.inner.name = "given"
    config.inner.whole = 0.5  # would raise if the ConfigDict had kept the int default
    config.inner.sizes = (4, 5)
    built = build(Outer, config)
    assert (built.inner.name, built.inner.whole, built.inner.sizes) == ("given", 0.5, (4, 5))


def test_missing_keys_take_defaults_and_ints_become_floats() -> None:
    built = build(Outer, {"inner": {"lr": 1}})
    assert built == Outer(inner=Inner(lr=1.0))
    assert isinstance(built.inner.lr, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"lrr": 1}}, "unknown setting inner.lrr; fix: did you mean inner.lr?"),
        ({"zzz": 1}, "unknown setting zzz; fix: one of on, inner"),
        ({"inner": {"lr": 0.0}}, "inner.lr=0.0; wanted: more than 0.0"),
        ({"inner": {"lr": 2.0}}, "inner.lr=2.0; wanted: at most 1.0"),
        ({"inner": {"lr": float("nan")}}, "inner.lr=nan; wanted: a finite number"),
        ({"inner": {"steps": 0}}, "inner.steps=0; wanted: at least 1"),
        ({"inner": {"steps": 1.5}}, "inner.steps=1.5 of type float; wanted: a value of type int"),
        ({"inner": {"steps": True}}, "inner.steps=True of type bool; wanted: a value of type int"),
        ({"on": 1}, "on=1 of type int; wanted: a value of type bool"),
        ({"inner": {"kind": "c"}}, "inner.kind='c'; wanted: one of a, b"),
        ({"inner": {"kinds": ("a", "c")}}, "inner.kinds=('a', 'c'); wanted: one of a, b"),
        ({"inner": {"sizes": (1, 0)}}, "inner.sizes=(1, 0); wanted: at least 1"),
        ({"inner": {"sizes": 3}}, "inner.sizes=3; wanted: a tuple"),
        ({"inner": {"name": 3}}, "inner.name=3 of type int; wanted: a value of type str"),
        ({"inner": {"lr": None}}, "inner.lr=None of type NoneType; wanted: a value of type float"),
        ({"inner": {"steps": 13}}, "inner.steps=13; wanted: another; fix: use 12"),
    ],
)
def test_refusals_name_field_value_and_fix(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Outer, values)
    assert str(error.value) == message


def test_a_value_where_a_group_belongs_is_refused() -> None:
    with pytest.raises(ConfigError, match="inner=3; wanted: a group of settings"):
        build(Outer, {"inner": 3})


def test_config_dict_values_are_checked_too() -> None:
    config = to_config_dict(Outer())
    config.inner.kind = "c"
    with pytest.raises(ConfigError, match="one of a, b"):
        build(Outer, config)
    assert isinstance(config.inner, ml_collections.ConfigDict)


def test_names_and_check_name() -> None:
    config = to_config_dict(Outer())
    assert set(names(config)) == {"on", "inner"} | {
        f"inner.{name}" for name in ("lr", "whole", "steps", "name", "kind", "sizes", "kinds")
    }
    for name in names(config):  # a setting that is None has a name, too
        check_name(config, name)
    with pytest.raises(ConfigError, match=r"unknown setting inner.stesp; fix: did you mean inner"):
        check_name(config, "inner.stesp")
    with pytest.raises(ConfigError, match="unknown setting zzz; fix: docs/config.md lists all"):
        check_name(config, "zzz")


def test_to_dict_is_plain() -> None:
    assert to_dict(Outer(inner=Inner(sizes=(1,))))["inner"]["sizes"] == [1]


# --- what a setting is a reference to, and what it affects ----------------------------------------


@dataclass(frozen=True)
class Below:
    start: str = setting("base", "Start.", ref="student")
    size: int = setting(4, "Size.", affects="rounding")
    log: int = setting(5, "Log.", affects="nothing")
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.")


@dataclass(frozen=True)
class Above:
    rows: str = setting("", "Rows.", ref="rows")
    below: Below = field(default_factory=Below)
    quiet: Below = group(Below, affects="nothing")
    rounded: Below = group(Below, affects="rounding")


def test_references_are_named_by_their_dotted_path() -> None:
    found = references(Above(rows="some", below=Below(start="sft")))
    assert found == [
        ("rows", "rows", "some"),
        ("below.start", "student", "sft"),
        ("quiet.start", "student", "base"),
        ("rounded.start", "student", "base"),
    ]


def test_affecting_leaves_out_what_changes_nothing() -> None:
    result = {"rows": "", "below.start": "base", "below.sizes": [1, 2]}
    assert affecting(Above(), rounding=False) == result
    rounded = {"start": "base", "size": 4, "log": 5, "sizes": [1, 2]}
    assert affecting(Above(), rounding=True) == {
        **result,
        "below.size": 4,
        **{f"rounded.{name}": value for name, value in rounded.items()},
    }


def test_an_unknown_effect_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="affects='speed'; wanted: one of result, rounding, noth"):
        setting(1, "x", affects="speed")


def test_leaves_carry_the_effect_of_the_outermost_group() -> None:
    @dataclass(frozen=True)
    class Top:
        above: Above = group(Above, affects="rounding")
        plain: Above = group(Above)

    found = {name: about["affects"] for name, about, _ in leaves(Top())}
    assert {effect for name, effect in found.items() if name.startswith("above.")} == {"rounding"}
    assert found["plain.below.log"] == found["plain.quiet.start"] == "nothing"
    assert found["plain.below.start"] == found["plain.rows"] == "result"
    assert found["plain.rounded.log"] == "rounding"
    values = {name: value for name, _, value in leaves(Top())}
    assert values["plain.below.sizes"] == (1, 2) and len(values) == 2 * (1 + 3 * 4)


def test_a_group_has_its_class_defaults_and_is_built_from_values() -> None:
    assert Above().quiet == Below()
    assert build(Above, {"quiet": {"size": 9}}).quiet == Below(size=9)
    assert build(Above, to_config_dict(Above(quiet=Below(log=1)))).quiet.log == 1
