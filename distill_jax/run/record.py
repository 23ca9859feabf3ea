"""What a stage's result depends on: its own settings, shared settings, digests of what it reads."""

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core import digest, settings
from distill_jax.core.errors import ConfigError
from distill_jax.core.files import read_json
from distill_jax.models import hf_io
from distill_jax.run.config import RunConfig, shared_of, upstream
from distill_jax.run.run import DONE_FILE, SETTINGS_FILE, Run, Stage
from distill_jax.run.settings import Shared, StageSettings

FORMAT = 2
# What to do where an evaluation asks for other prompts than a run was trained with.
ELSEWHERE = (
    "to evaluate its student so, export it and evaluate that directory in another --workdir "
    '(docs/usage.md, "Other prompts for a trained student")'
)


class Record(NamedTuple):
    """Everything that a stage's result depends on, as JSON-able values.

    Attributes:
        kind: of the stage.
        own: {dotted name: value} of its own settings.
        shared: {dotted name: value} of the shared settings that it names.
        inputs: {name: digest} of the files and problems that it reads.
        format: of the record.
    """

    kind: str
    own: dict[str, Any]
    shared: dict[str, Any]
    inputs: dict[str, str]
    format: int = FORMAT


def record(run: Run, stage: Stage[Any], *, contents: bool, rounding: bool) -> Record:
    """The record of a stage as the config and the directory are now.

    Args:
        run: config, directory.
        stage: of the plan.
        contents: read the problems, and the models outside the directory, too.
        rounding: with the settings that change the last bits alone.
    """
    own, shared = setting_values(run.config, stage.name, rounding=rounding)
    return Record(stage.kind, own, shared, inputs(run, stage, contents=contents))


def setting_values(
    config: RunConfig, name: str, *, rounding: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A stage's own settings and the shared settings that it names, as flat dicts."""
    stage = config.plan[name]
    everything = settings.affecting(shared_of(config), rounding=rounding)
    wanted = tuple(f"{one}." for one in stage.shared())
    shared = {name: value for name, value in everything.items() if f"{name}.".startswith(wanted)}
    return settings.affecting(stage, rounding=rounding), shared


def inputs(run: Run, stage: Stage[Any], *, contents: bool) -> dict[str, str]:
    """Digests of what the stage reads, by name.

    What other stages made is known from its files, or from done.json where they are missing.
    Problems and outside models that a complete stage has read may be gone: without `contents`,
    missing ones are skipped.
    """
    found = _of_stages(run, stage)

    def read(path: str) -> bool:
        return contents or bool(path and Path(path).exists())

    for role in stage.settings.roles():
        path = run.models.settings_of(role).path
        if path and read(path):
            found[f"weights of the {role}"] = run.digest(run.models.path(role))
    for name, path in stage.settings.further_models().items():
        if read(path):
            found[f"weights of {name}"] = run.digest(hf_io.model_dir(path))
    for setting, ref, value in settings.references(stage.settings):
        if ref == "function":
            found |= _of_function(setting, value)
        elif value and (ref == "file" or value not in run.config.plan) and read(value):
            found |= _of_path(run, setting, ref, value)
    shots = run.config.data.chat.shots
    if "data.chat.shots" in setting_values(run.config, stage.name, rounding=False)[1]:
        if shots and read(shots):
            found["worked examples of data.chat.shots"] = run.digest(Path(shots).expanduser())
    for split in stage.settings.splits():
        if read(run.data.source_of(split)):
            found[f"{split} problems"] = run.data.digest(split)
    return found


def _of_stages(run: Run, stage: Stage[Any]) -> dict[str, str]:
    """What other stages of the run made."""
    found: dict[str, str] = {}
    for setting, ref, other in upstream(run.config, stage.name):
        for name, value in run.made(other).items():
            if ref != "models" or name == setting:
                # Its files, where they are: done.json does not know that one was replaced.
                files = run.workdir / other / name
                files = files / "model" if ref == "models" else files
                now = run.digest(files) if files.exists() else value
                found[f"{setting} ({name} of {other})"] = now
    return found


def _of_function(setting: str, value: str) -> dict[str, str]:
    """The source file of a function that a setting names; {} where there is none."""
    name = value.partition(":")[0].replace(".", "/")
    tries = [Path(p, name + e) for p in ("", *sys.path) for e in ("/__init__.py", ".py")]
    source = next((path for path in tries if path.is_file()), None) if value else None
    return {f"{setting} {value}": digest.of(source.read_bytes())} if source else {}


def _of_path(run: Run, setting: str, ref: str, value: str) -> dict[str, str]:
    """What a setting names outside the plan: a student, rows, a reward model, a file."""
    if ref == "student":
        parts = run.student_digests(run.student(value))
        return {f"{setting} {value} ({part})": one for part, one in parts.items()}
    if ref in ("rows", "reward_model"):
        place = run.rows(value) if ref == "rows" else run.reward_model(value)
        return {f"{setting} {value}": run.digest(place)}
    return {f"{setting} {value}": run.digest(Path(value))} if ref == "file" else {}


def stage_key(config: RunConfig, name: str) -> str:
    """Digest of all settings that a stage's result depends on, those of upstream stages included.

    Two runs with equal keys of a stage make the same of it.
    """
    own, shared = setting_values(config, name, rounding=False)
    above = {
        setting: (other, stage_key(config, other)) for setting, _, other in upstream(config, name)
    }
    values = {setting: value for setting, value in own.items() if setting not in above}
    parts = [config.plan[name].kind, values, shared, above]
    return digest.of(json.dumps(parts, sort_keys=True))


def recorded(directory: Path) -> dict[str, Any] | None:
    """What is recorded of the stage in a directory, as JSON; None where none was begun.

    Raises:
        ConfigError: an earlier version recorded it.
    """
    complete = (directory / DONE_FILE).is_file()
    found = read_json(directory / (DONE_FILE if complete else SETTINGS_FILE))
    if found is not None and found.get("format") != FORMAT:
        raise ConfigError(
            f"{directory} was made by an earlier version",
            wanted=f"format {FORMAT}",
            fix="use another --workdir, or delete that directory",
        )
    return found


def refuse_if_changed(run: Run, stage: Stage[Any]) -> None:
    """Refuses a stage that was run or begun here with other settings or inputs.

    Raises:
        ConfigError: naming the setting or input, its old and new value, and the fix.
    """
    directory = run.workdir / stage.name
    before = recorded(directory)
    if before is None:
        return
    complete = (directory / DONE_FILE).is_file()
    now = record(run, stage, contents=False, rounding=not complete)
    _refuse(run, stage, "", {"kind": before["kind"]}, {"kind": now.kind})
    own, shared = recorded_as(before, now.own, now.shared, stage.settings)
    _refuse(run, stage, f"{stage.name}.", own, now.own)
    _refuse(run, stage, "", shared, now.shared)
    refuse_other_inputs(run, stage, before["inputs"], now.inputs)
    if complete and (missing := untrained(before, run.config, stage.name)):
        raise ConfigError(
            f"{directory} is complete without the {' and '.join(missing)} that "
            f"stages={run.config.stages} trains: no stage of its run could read one",
            wanted="a directory in which it is trained",
            fix=f"use another --workdir, or delete {directory}",
        )


def untrained(done: Mapping[str, Any], config: RunConfig, name: str) -> list[str]:
    """The models that a start trains and that the record of its complete stage does not name."""
    roles = config.plan[name].trained_roles(config, name)
    return [role for role in roles if role not in done["made"]]


def refuse_other_shared(run: Run, stage: Stage[Any], groups: Collection[str]) -> None:
    """Raises ConfigError where a stage begun here had other shared settings of these groups."""
    before = (recorded(run.workdir / stage.name) or {"shared": {}})["shared"]
    now = settings.affecting(shared_of(run.config), rounding=False)
    was = {n: value for n, value in before.items() if n in now and n.partition(".")[0] in groups}
    _refuse(run, stage, "", was, now)


def recorded_as(
    before: Mapping[str, Any],
    own: Mapping[str, Any],
    shared: Mapping[str, Any],
    stage: StageSettings,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded values of these settings; a setting added since then at its default.

    before: a record as JSON; own, shared: the settings now; stage: of the kind, for the defaults.
    """

    def values(recorded: Mapping[str, Any], now: Mapping[str, Any], group: Any) -> dict[str, Any]:
        defaults = settings.affecting(group, rounding=True)
        return {name: recorded.get(name, defaults.get(name)) for name in now}

    return values(before["own"], own, type(stage)()), values(before["shared"], shared, Shared())


def evaluates_alone(config: RunConfig) -> bool:
    """Whether this start only makes results, of what earlier ones have trained."""
    return all(config.plan[name].makes == "results" for name in config.stages)


def _refuse(
    run: Run, stage: Stage[Any], prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    directory = run.workdir / stage.name
    other = f"; {ELSEWHERE}" if evaluates_alone(run.config) else ""
    for name in sorted(before):
        if before[name] != now.get(name):
            raise ConfigError(
                f"{directory} was made with {prefix}{name}={before[name]!r}, now {now.get(name)!r}",
                wanted="the same value",
                fix=f"use another --workdir, or delete {directory}; --adopt={directory.parent} "
                f"with another --workdir keeps the stages that stay the same{other}",
            )


def refuse_other_inputs(
    run: Run, stage: Stage[Any], before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Raises ConfigError if an input that both records name has changed."""
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        directory = run.workdir / stage.name
        raise ConfigError(
            f"changed since {directory} was begun: {', '.join(changed)}",
            wanted="the originals",
            fix="use another --workdir, or delete that directory",
        )
