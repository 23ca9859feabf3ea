"""Settings that nothing reads while other settings have some value.

A class of settings has a table UNREAD of them, so that a value that would be ignored is refused
where a user gives it, and named where a config brings it.
"""

import dataclasses
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from distill_jax.core.errors import ConfigError


class Unread(NamedTuple):
    """An entry of a table.

    Attributes:
        names: settings of the class; the dotted name of a group stands for all its settings.
        causes: dotted names of the settings that decide.
        when: whether nothing reads `names`, from the values of `causes`.
    """

    names: tuple[str, ...]
    causes: tuple[str, ...]
    when: Callable[..., bool]


class Found(NamedTuple):
    """A setting that nothing reads: its dotted name, value and default, and why."""

    name: str
    value: Any
    default: Any
    why: str


def off(value: Any) -> bool:
    """An `Unread.when`: its one cause is 0, empty, None or False."""
    return not value


def find(settings: Any, path: str = "") -> list[Found]:
    """The settings other than their defaults that nothing reads, those of nested groups included.

    `path` comes before each name.
    """
    changed = list(_changed(settings, None, ""))
    found: dict[str, Found] = {}
    for prefix, group in _groups(settings, ""):
        for names, causes, when in getattr(type(group), "UNREAD", ()):
            values = [operator.attrgetter(name)(group) for name in causes]
            if not when(*values):
                continue
            pairs = zip(causes, values, strict=True)
            why = " and ".join(f"{path}{prefix}{name}={value!r}" for name, value in pairs)
            below = tuple(f"{prefix}{name}." for name in names)
            for name, value, default in changed:
                if f"{name}.".startswith(below):
                    found.setdefault(name, Found(path + name, value, default, why))
    return list(found.values())


def _groups(settings: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, settings
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _groups(value, f"{path}{field.name}.")


def _changed(settings: Any, plain: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value, default) of each setting other than its default.

    plain: the group as it is by default; None: the fields' own defaults count, since an instance
    of the class may be what is checked.
    """
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{path}{field.name}"
        if plain is not None:
            default = getattr(plain, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        else:
            assert field.default_factory is not dataclasses.MISSING
            default = field.default_factory()
        if dataclasses.is_dataclass(value):
            yield from _changed(value, default, f"{name}.")
        elif value != default:
            yield name, value, default


def refuse(found: Sequence[Found], given: Collection[str] | None = None) -> None:
    """Raises ConfigError for the first of `found` whose name is given; None: for the first."""
    for one in found:
        if given is None or one.name in given:
            raise ConfigError(
                f"{one.name}={one.value!r} with {one.why}",
                wanted=f"its default {one.default!r}: nothing reads it then",
                fix=f"leave {one.name} out, or change {one.why.replace(' and ', ' or ')}",
            )


def said(found: Sequence[Found]) -> list[str]:
    """A line for each cause, with the settings that are not read because of it."""
    by_cause: dict[str, list[str]] = {}
    for one in found:
        by_cause.setdefault(one.why, []).append(f"{one.name}={one.value!r}")
    return [f"not read with {why}: {', '.join(names)}" for why, names in by_cause.items()]
