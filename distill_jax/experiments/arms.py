"""Arms of an experiment: a name and the settings in which it differs from the base."""

import ast
import dataclasses
import operator
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core import unread
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import check_name
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.run.config import RunConfig, build, to_config_dict, upstream
from distill_jax.run.given import ignored
from distill_jax.run.record import stage_key
from distill_jax.run.settings import ExperimentSettings

SHARED = "shared"
# A directory next to the experiment's own files.
_NAME = re.compile(r"(?!.*\.(?:json|md|png)$)[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Arm(NamedTuple):
    """A name, fit for a directory, and {dotted setting: value}."""

    name: str
    changes: dict[str, Any]


def run_directory(workdir: Path, arm: str, seed: int) -> Path:
    """workdir/ARM/seed_N: an ordinary work directory."""
    return workdir / arm / f"seed_{seed}"


def parse(texts: Sequence[str], base: RunConfig) -> list[Arm]:
    """Arms from `name` or `name: setting=value; setting=value`.

    A value is a Python literal, or else a string.

    Raises:
        ConfigError: a name is missing, odd or there twice; no such setting, or none of a run's;
            no `=`.
    """
    arms: list[Arm] = []
    flat = to_config_dict(base)
    for text in texts:
        name, _, rest = (part.strip() for part in text.partition(":"))
        if not _NAME.fullmatch(name) or name in (SHARED, *(arm.name for arm in arms)):
            wanted = "'name: setting=value; …' with a new name made of letters, digits and ._-"
            raise ConfigError(f"experiment.arms has {text!r}", wanted=wanted)
        changes = {}
        for part in filter(None, (part.strip() for part in rest.split(";"))):
            setting, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise ConfigError(f"arm {name} has {part!r}", wanted="setting=value")
            check_name(flat, setting)
            if setting == "seed" or setting.startswith("experiment"):
                # Every seed of such an arm would be one and the same run.
                fix = "name the seeds of all arms in experiment.seeds"
                raise ConfigError(f"arm {name} sets {setting}", wanted="settings of a run", fix=fix)
            changes[setting] = _literal(value)
        arms.append(Arm(name, changes))
    return arms


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def config_of(base: RunConfig, arm: Arm | None, seed: int) -> RunConfig:
    """The settings of one run; None is the base itself.

    Raises:
        ConfigError: a value of the arm is not allowed, or of another type.
    """
    plain = dataclasses.replace(base, experiment=ExperimentSettings(), seed=seed)
    if arm is None:
        return plain
    config = to_config_dict(plain)
    for name, value in arm.changes.items():
        try:  # as on the command line: 1 where 1.0 is meant
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            wanted = f"as {operator.attrgetter(name)(config)!r}"
            raise ConfigError(f"arm {arm.name} has {name}={value!r}", wanted=wanted) from error
    made = build(config)
    for name in made.stages:
        stage = made.plan[name]
        if isinstance(stage, EvaluateSettings) and not stage.samples:
            wanted = "at least 1: arms are compared by pass@1"
            raise ConfigError(f"arm {arm.name} has {name}.samples=0", wanted=wanted)
    return made


def refuse_ignored(
    base: RunConfig, arms: Sequence[Arm], workdir: Path, given: Collection[str]
) -> None:
    """Raises ConfigError where an arm sets what it ignores, or all ignore a setting `given`."""
    seed = base.experiment.seeds[0]
    by_arm = [
        ignored(config_of(base, arm, seed), run_directory(workdir, arm.name, seed)) for arm in arms
    ]
    everywhere = set.intersection(*({one.name for one in found} for found in by_arm))
    for arm, found in zip(arms, by_arm, strict=True):
        unread.refuse(found, {*arm.changes, *(everywhere & set(given))})


def shared_stages(base: RunConfig, config: RunConfig) -> tuple[str, ...]:
    """The stages that the base's run and another run have in common, in order.

    Stages that do only what is new each time belong to their own run.
    """
    out: list[str] = []
    for name in base.stages:
        if name not in config.stages or base.plan[name].makes == "results":
            continue
        reads = [other for _, _, other in upstream(base, name)]
        if set(reads) <= set(out) and stage_key(base, name) == stage_key(config, name):
            out.append(name)
    return tuple(out)
