"""RunConfig: shared settings and a plan of named stages, and its flat form for the command line.

In the flat form each stage is a group of settings at the top level, `config.rl`, with its kind in
`config.rl.kind`; `config.plan` keeps the stages' order, which a ConfigDict forgets.
"""

import dataclasses
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from distill_jax.core import settings
from distill_jax.core.errors import ConfigError
from distill_jax.run.settings import BASE, Shared, StageSettings

# Folders of a work directory that are no stage's, and words that references use.
RESERVED = (
    BASE, "teacher", "student", "model", "tokenizer", "export", "compare_logits", "bought", "plan",
)  # fmt: skip
_SHARED = tuple(f.name for f in dataclasses.fields(Shared))


@dataclass(frozen=True)
class RunConfig(Shared):
    """The settings of a run; `plan` has those of each stage by its name, in order, and `stages`
    says which of them run.
    """

    plan: Mapping[str, StageSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages=()", wanted=f"some of {', '.join(self.plan)}")
        _check_names(self)
        _check_order(self)
        for name in self.stages:
            self.plan[name].check_with(self, name)
        _check_models(self)

    @property
    def order(self) -> tuple[str, ...]:
        """All stages of the plan; those of `stages` in their order there."""
        running = iter(self.stages)
        return tuple(next(running) if name in self.stages else name for name in self.plan)

    @property
    def models_stage(self) -> str | None:
        """The stage that trains the models without a path; None without such a stage."""
        return next((name for name in self.order if self.plan[name].makes == "models"), None)

    def replace(self, stage: str, **changes: Any) -> "RunConfig":
        """The config with other settings of one stage."""
        changed = dataclasses.replace(self.plan[stage], **changes)
        return dataclasses.replace(self, plan={**self.plan, stage: changed})


def upstream(config: RunConfig, name: str) -> list[tuple[str, str, str]]:
    """(setting, kind of reference, stage) of the stages whose products a stage reads.

    The stage that makes the models counts for each role without a path.
    """
    found = [
        (setting, ref, value)
        for setting, ref, value in settings.references(config.plan[name])
        if value in config.plan and ref != "file"
    ]
    maker = config.models_stage
    for role in config.plan[name].roles():
        if not getattr(config, role).path and maker is not None:
            found.append((role, "models", maker))
    return found


def concerned(config: RunConfig) -> list[str]:
    """The stages to run and those whose products they read, in order."""
    found: set[str] = set()
    todo = list(config.stages)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [other for _, _, other in upstream(config, name)]
    return [name for name in config.order if name in found]


def _check_names(config: RunConfig) -> None:
    for name in config.plan:
        taken = name in (*RESERVED, *_SHARED) or hasattr(ml_collections.ConfigDict, name)
        checkpoint = re.fullmatch(r".+_step_\d+", name)  # STAGE_step_N is a model's name
        if taken or checkpoint or not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigError(
                f"a stage named {name!r}",
                wanted="a Python name that is no setting of a run, no attribute of ConfigDict, not "
                "STAGE_step_N and not one of " + ", ".join(RESERVED),
            )
    for name in config.stages:
        if name not in config.plan:
            raise ConfigError(f"stages has {name!r}", wanted=f"some of {', '.join(config.plan)}")
        if config.stages.count(name) > 1:
            raise ConfigError(f"stages has {name} twice", wanted="each stage once")


def _check_order(config: RunConfig) -> None:
    order = config.order
    for name in config.stages:
        _check_references(config, name)
        for setting, ref, other in upstream(config, name):
            makes = config.plan[other].makes
            if ref not in (makes, *config.plan[other].byproducts):
                raise ConfigError(
                    f"{name}.{setting}={other}, a stage that makes {makes}", wanted=f"one of {ref}s"
                )
            if order.index(other) >= order.index(name):
                raise ConfigError(
                    f"stages={config.stages}: {name} comes before {other}, which it reads",
                    wanted=f"{other} before {name}",
                )
        _check_circle(config, name, ())


def _check_circle(config: RunConfig, name: str, path: tuple[str, ...]) -> None:
    """No stage reads its own product, not even through stages that do not run."""
    path = (*path, name)
    if name in path[:-1]:
        raise ConfigError(f"stages in a circle: {' reads '.join(path)}", fix="change one of them")
    for _, _, other in upstream(config, name):
        _check_circle(config, other, path)


def _check_references(config: RunConfig, name: str) -> None:
    """A reference that looks like a stage's name is one."""
    for setting, ref, value in settings.references(config.plan[name]):
        directory = Path(value).name and ("/" in value or Path(value).exists())
        optional = not value and ref != "student"
        bare = value == BASE and ref == "student"
        if value in config.plan or directory or optional or bare or ref in ("function", "file"):
            continue
        plan = config.plan
        makers = [one for one in plan if ref in (plan[one].makes, *plan[one].byproducts)]
        raise ConfigError(
            f"{name}.{setting}={value!r}",
            wanted=f"{f'{BASE}, ' if ref == 'student' else ''}a stage of the plan that makes "
            f"{ref if ref == 'rows' else f'a {ref}'} ({', '.join(makers)}), or a path",
            fix=f"set {name}.{setting}",
        )


def _check_models(config: RunConfig) -> None:
    embedded = config.data.source == "embedded"
    # A stage may have another teacher than the run's.
    teaching = any(config.plan[name].reads_teacher() for name in config.stages)
    for name, model in (("teacher", config.teacher), ("student", config.student)):
        if not model.path and not embedded and (teaching or name == "student"):
            raise ConfigError(
                f"{name}.path is empty with data.source={config.data.source}",
                fix=f"set {name}.path to a Hugging Face directory or hub id, e.g. to "
                f"runs/tiny/pretrain/{name}/model, which preset tiny makes",
            )
        shares, levels = model.level_shares, config.data.problems.levels
        if shares and not model.path and (len(shares) != levels or not any(shares)):
            raise ConfigError(
                f"{name}.level_shares={shares}",
                wanted=f"a share of each of the {levels} levels, not all 0",
            )
    unequal = bool(config.teacher.path) != bool(config.student.path)
    if unequal and (teaching or config.teacher.path):
        raise ConfigError(
            f"teacher.path={config.teacher.path!r} with student.path={config.student.path!r}",
            wanted="both paths or neither: they must share a tokenizer",
        )


def to_config_dict(config: RunConfig) -> ml_collections.ConfigDict:
    """The flat form, for overrides on a command line."""
    flat = settings.to_config_dict(shared_of(config))
    flat.plan = tuple(config.plan)
    for name, stage in config.plan.items():
        flat[name] = settings.to_config_dict(stage)
        flat[name].kind = stage.kind
    return flat


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The flat form as plain values, fit for JSON."""
    flat = settings.to_dict(shared_of(config))
    flat["plan"] = list(config.plan)
    for name, stage in config.plan.items():
        flat[name] = {"kind": stage.kind, **settings.to_dict(stage)}
    return flat


def build(values: Mapping[str, Any]) -> RunConfig:
    """The config of a flat form.

    Raises:
        ConfigError: naming the field by its dotted path, the value and the fix.
    """
    flat = _without_removed(values)
    names: Sequence[str] = tuple(flat.pop("plan", ()))
    plan = {}
    for name in names:
        if name not in flat:
            raise ConfigError(f"plan has {name!r} without settings", wanted=f"a group {name}")
        plan[name] = _stage(name, flat.pop(name))
    shared = settings.build(Shared, flat)
    return RunConfig(**{name: getattr(shared, name) for name in _SHARED}, plan=plan)


def _without_removed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without settings that earlier versions wrote and never let differ."""
    flat = dict(values.items())
    student = flat.get("student")
    if isinstance(student, Mapping) and student.get("quantise") == "none":
        flat["student"] = {name: one for name, one in student.items() if name != "quantise"}
    return flat


def _stage(name: str, group: Any) -> StageSettings:
    if not isinstance(group, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{name}={group!r}", wanted="a group of settings with a kind")
    values = dict(group.items())
    kind = values.pop("kind", None)
    if kind not in StageSettings.kinds:
        raise ConfigError(
            f"{name}.kind={kind!r}", wanted=f"one of {', '.join(StageSettings.kinds)}"
        )
    return settings.build(StageSettings.kinds[kind], values, f"{name}.")


def shared_of(config: RunConfig) -> Shared:
    """The shared settings alone."""
    return Shared(**{name: getattr(config, name) for name in _SHARED})
