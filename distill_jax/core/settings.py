"""Settings: frozen dataclasses whose fields carry doc and limits, and their strict conversion.

A setting is defined with the code that it configures. `configs/*.py` hold instances turned into
`ml_collections.ConfigDict` for command-line overrides; `build` turns the result back, once,
and refuses what is unknown, of the wrong type or outside its limits.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections

from distill_jax.core.errors import ConfigError

T = TypeVar("T")
# What a change of a setting affects: see `setting`.
AFFECTS = ("result", "rounding", "nothing")


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Sequence[Any] | None = None,
    ref: str | None = None,
    affects: str = "result",
) -> Any:
    """A dataclass field with its documentation and limits.

    Args:
        default: default value; a dataclass instance nests another group of settings.
        doc: one sentence for docs/config.md.
        low, high: smallest and largest value allowed.
        above: the value must be greater than this.
        choices: the only values allowed; for tuples, the only items allowed.
        ref: the value names what another stage makes: "student", "rows", "model" or
            "reward_model"; or, "function", a user's module:function, or, "file", a user's file.
        affects: "result": a change makes another result. "rounding": speed and memory, and the
            last bits of a result, so that a half-finished stage keeps the value. "nothing": speed,
            memory or logging alone.
    """
    if affects not in AFFECTS:
        raise ValueError(f"affects={affects!r}; wanted: one of {', '.join(AFFECTS)}")
    limits = {"low": low, "high": high, "above": above, "choices": choices}
    metadata = {"doc": doc, "ref": ref, "affects": affects, **limits}
    return dataclasses.field(default=default, metadata=metadata)


def references(settings: Any) -> list[tuple[str, str, str]]:
    """(dotted name, kind of reference, value) of each setting that is a reference."""
    return [
        (name, str(about["ref"]), value)
        for name, about, value in leaves(settings)
        if about.get("ref")
    ]


def affecting(settings: Any, *, rounding: bool) -> dict[str, Any]:
    """{dotted name: value} of the settings that a result depends on.

    With `rounding` also those that change speed, memory and the last bits alone.
    """
    wanted = ("result", "rounding") if rounding else ("result",)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, about, value in leaves(settings)
        if about.get("affects", "result") in wanted
    }


def group(cls: type, *, affects: str = "") -> Any:
    """A dataclass field that nests a group of settings with their defaults.

    `affects` holds for every setting of the group; "" leaves it to each of them.
    """
    return dataclasses.field(default_factory=cls, metadata={"affects": affects} if affects else {})


def leaves(
    settings: Any, path: str = "", affects: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """(dotted name, what is known about it, value) of each setting, nested groups included."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{path}{field.name}"
        about = {**field.metadata, "affects": affects} if affects else field.metadata
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.", affects or field.metadata.get("affects", ""))
        else:
            yield name, about, value


def to_config_dict(settings: Any) -> ml_collections.ConfigDict:
    """The settings as a ConfigDict; values that may be None stay overridable."""
    config = ml_collections.ConfigDict()
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            config[field.name] = to_config_dict(value)
        elif type(None) in typing.get_args(hints[field.name]):
            kind = next(k for k in typing.get_args(hints[field.name]) if k is not type(None))
            config[field.name] = ml_collections.config_dict.placeholder(kind)
            if value is not None:
                config[field.name] = value
        else:
            # An int default of a float setting would refuse `--config.x=0.5`.
            whole = hints[field.name] is float and isinstance(value, int)
            config[field.name] = float(value) if whole else value
    return config


def names(config: ml_collections.ConfigDict, path: str = "") -> list[str]:
    """Dotted names of all settings and groups of settings in a config."""
    out = []
    for name in config:
        out.append(path + name)
        if isinstance(config.get_ref(name).get(), ml_collections.ConfigDict):
            out += names(config[name], f"{path}{name}.")
    return out


def check_name(config: ml_collections.ConfigDict, name: str) -> None:
    """Raises ConfigError, with the nearest known name, when `config` has no setting `name`."""
    known = names(config)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {near[0]}?" if near else "docs/config.md lists all settings"
        raise ConfigError(f"unknown setting {name}", fix=fix)


def build(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Frozen settings of class `cls` from a mapping; missing keys take their defaults.

    Raises:
        ConfigError: naming the field by its dotted path, the value and the fix.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {path}{near[0]}?" if near else f"one of {', '.join(fields)}"
            raise ConfigError(f"unknown setting {path}{key}", fix=hint)
    built: dict[str, Any] = {}
    for key, value in values.items():
        kind, name = hints[key], f"{path}{key}"
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping | ml_collections.ConfigDict):
                raise ConfigError(f"{name}={value!r}", wanted=f"a group of settings ({kind})")
            built[key] = build(typing.cast(type, kind), dict(value.items()), f"{name}.")
        else:
            built[key] = _check(name, value, kind, fields[key].metadata)
    try:
        return cls(**built)
    except ConfigError as error:
        if not path or error.message.startswith(path):
            raise
        raise ConfigError(path + error.message, wanted=error.wanted, fix=error.fix) from error


def _check(name: str, value: Any, kind: Any, limits: Mapping[str, Any]) -> Any:
    value = _coerce(name, value, kind)
    items = value if isinstance(value, tuple) else (value,)
    for item in items:
        if item is None:
            continue
        choices = limits.get("choices")
        if choices is not None and item not in choices:
            raise ConfigError(f"{name}={value!r}", wanted=f"one of {', '.join(map(str, choices))}")
        if isinstance(item, bool) or not isinstance(item, int | float):
            continue
        low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
        if low is not None and item < low:
            raise ConfigError(f"{name}={value!r}", wanted=f"at least {low}")
        if high is not None and item > high:
            raise ConfigError(f"{name}={value!r}", wanted=f"at most {high}")
        if above is not None and item <= above:
            raise ConfigError(f"{name}={value!r}", wanted=f"more than {above}")
    return value


def _coerce(name: str, value: Any, kind: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(name, value, next(k for k in args if k is not type(None)))
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(f"{name}={value!r}", wanted="a tuple")
        return tuple(_coerce(name, item, args[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        wanted = f"a value of type {kind.__name__}"
        raise ConfigError(f"{name}={value!r} of type {type(value).__name__}", wanted=wanted)
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name}={value!r}", wanted="a finite number")
    return value


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as plain nested dicts, tuples as lists: fit for JSON."""
    return dataclasses.asdict(
        settings,
        dict_factory=lambda pairs: {n: list(v) if isinstance(v, tuple) else v for n, v in pairs},
    )
