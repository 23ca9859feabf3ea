"""Runs the stages of a config in order: skips what is complete, resumes what is not."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local, read_json
from distill_jax.core.settings import build, to_dict
from distill_jax.run import lock
from distill_jax.stages import checks, distill, evaluate, inputs, pretrain, rl, sft
from distill_jax.stages.context import Context, write_json
from distill_jax.stages.settings import STAGES as ORDER
from distill_jax.stages.settings import RunConfig
from distill_jax.stages.stop import GO_ON, Interrupted
from distill_jax.training.manifest import write_manifest
from distill_jax.training.progress import clock

STAGES: dict[str, Callable[[Context, Path], dict[str, Any]]] = {
    "pretrain": pretrain.run,
    "sft": sft.run,
    "distill": distill.run,
    "rl": rl.run,
    "evaluate": evaluate.run,
}

# Groups of settings that a stage's result depends on, beside those of the stages before it.
# Mesh, checkpoints and records change nothing of it.
_SHARED = ("seed", "data", "sampling", "teacher", "student", "tokenizer_size")
_DEPENDS = {
    "pretrain": ("pretrain",),
    "sft": ("lora", "sft"),
    "distill": ("lora", "distill"),
    "rl": ("rl",),
    "evaluate": ("evaluate",),
}
# The stages before it that a stage builds on. Evaluate looks at what distill made, but knows each
# student by its weights.
_BUILDS_ON = {
    "pretrain": (),
    "sft": ("pretrain",),
    "distill": ("pretrain", "sft"),
    "rl": ("pretrain", "sft"),
    "evaluate": ("pretrain", "sft", "rl"),
}
# Of the settings of evaluate: which models are looked at, which changes nothing of what is found.
_CHOICE = ("teacher", "checkpoints", "model", "distribution", "compare_batch")


def run(config: RunConfig, workdir: Path) -> None:
    """Runs config.stages; each stage's files lie in workdir/STAGE, with done.json when complete.

    Raises:
        ConfigError: the directory holds stages that were run with other settings, data or weights.
        Interrupted: asked to stop, by SIGTERM or SIGINT; everything done is saved.
        DistillError: whatever `checks.check` finds wrong, before any stage begins.
    """
    check_workdir(workdir)
    context = Context(config, workdir)
    begun = time.perf_counter()
    with lock.held(context.workdir), context.stop:
        try:
            check(context)
            for number, stage in enumerate(config.stages):
                if context.stop.due(number):
                    raise Interrupted(f"asked to stop before stage {stage}; {GO_ON}")
                _run_stage(context, stage)
        except Interrupted as interrupted:
            interrupted.exit_code = context.stop.exit_code
            raise
    context.say(f"all stages took {clock(time.perf_counter() - begun)}")


def check_workdir(workdir: Path) -> None:
    """Makes the work directory, if files can be made there.

    Raises:
        ConfigError: it, or a folder above it, is a file or may not be written to.
    """
    check_local(workdir, "--workdir")
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"--workdir={workdir}: {place} is a file", wanted="a directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--workdir={workdir}: no permission to write in {place}", fix="choose another"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # e.g. a file system that takes no files, whatever its modes say
        raise ConfigError(f"--workdir={workdir}: {error.strerror}", fix="choose another") from error


def _run_stage(context: Context, stage: str) -> None:
    directory = context.directory(stage)
    settings = settings_of(context.config, stage)
    done = read_json(directory / "done.json")
    if done is not None:
        # Evaluate goes on below with the problems of now.
        look = inputs.of if stage == "evaluate" else inputs.of_complete
        made_from = look(context, stage)
        inputs.check_same(directory, done.get("inputs", {}), made_from)
        if stage == "evaluate":
            context.say(
                f"evaluate: complete, only what is new or changed is evaluated ({directory})"
            )
            evaluate.run(context, directory)
        else:
            context.say(f"{stage}: complete, skipped ({directory})")
        return
    made_from = inputs.of(context, stage)
    begun_with = read_json(directory / "settings.json") or {}
    inputs.check_same(directory, begun_with.get("inputs", {}), made_from)
    sharding.barrier(f"begin {stage}")
    write_manifest(directory, context.config)
    write_json(directory / "settings.json", {"settings": settings, "inputs": made_from})
    begun = time.perf_counter()
    figures = STAGES[stage](context, directory)
    seconds = time.perf_counter() - begun
    sharding.barrier(f"done {stage}")
    done = {"stage": stage, "settings": settings, "inputs": made_from, "figures": figures}
    done |= {"seconds": seconds, "dropped_prompts": context.dropped()}
    write_json(directory / "done.json", done)
    context.say(f"{stage}: complete in {seconds:.0f} s ({directory})")


def is_done(context: Context, stage: str) -> bool:
    """Whether the stage is complete in this work directory."""
    return (context.workdir / stage / "done.json").exists()


def settings_of(config: RunConfig, stage: str) -> dict[str, Any]:
    """The settings that a stage's result depends on."""
    whole = to_dict(config)
    names = list(_SHARED)
    for one in (*_BUILDS_ON[stage], stage):
        names += _DEPENDS[one]
    if stage == "distill" and config.distill.start == "base":
        names.remove("sft")
    if config.teacher.path and config.student.path:
        names = [name for name in names if name not in ("pretrain", "tokenizer_size")]
    return _without_choice({name: whole[name] for name in names})


def _without_choice(settings: dict[str, Any]) -> dict[str, Any]:
    if "evaluate" not in settings:
        return settings
    kept = {name: x for name, x in settings["evaluate"].items() if name not in _CHOICE}
    return {**settings, "evaluate": kept}


def check(context: Context) -> None:
    """What can be known to be impossible before any work.

    Raises:
        ConfigError: settings that differ from those of a stage already run here.
        DistillError: see `checks.check`.
    """
    stages = context.config.stages
    concerned = {*stages, *(one for stage in stages for one in _BUILDS_ON[stage])}
    for stage in (one for one in ORDER if one in concerned):
        for file in ("done.json", "settings.json"):
            path = context.workdir / stage / file
            found = read_json(path)
            if found is not None:
                _same(context, stage, path, found["settings"])
    due = [stage for stage in stages if stage == "evaluate" or not is_done(context, stage)]
    checks.check(context, stages, due)


def _same(context: Context, stage: str, path: Path, found: Any) -> None:
    wanted = json.loads(json.dumps(settings_of(context.config, stage)))
    difference = _first_difference(_without_choice(_whole(found)), wanted, "")
    if difference:
        # The stages are looked at in order: those before this one are of the same settings.
        before = ["tokenizer", *_BUILDS_ON[stage]]
        made = [name for name in before if (context.workdir / name).exists()]
        kept = f"{context.workdir}/{{{','.join(made)}}}"
        keep = f"; mkdir -p NEW && cp -r {kept} NEW/ keeps what comes before it"
        raise ConfigError(
            f"{path.parent} holds stage {stage} with other settings: {difference}",
            fix=f"use another --workdir=NEW, or delete {path.parent}"
            + (keep if len(made) > 1 else ""),
        )


def _whole(found: dict[str, Any]) -> dict[str, Any]:
    """Settings as saved, those that came into being later at their defaults."""
    try:
        now = to_dict(build(RunConfig, found))
    except ConfigError:  # one that is no more: told of as a difference
        return found
    return json.loads(json.dumps({name: now[name] for name in found}))


def _first_difference(found: Any, wanted: Any, name: str) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            inner = _first_difference(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
            if inner:
                return inner
        return ""
    return "" if found == wanted else f"{name} was {found!r}, now {wanted!r}"
