"""Runs the stages of a plan in order: skips complete ones, resumes begun ones."""

import time
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.core.files import CONFIG_FILE, read_json, remove_stale
from distill_jax.report import view
from distill_jax.run import lock
from distill_jax.run.adopt import adopt
from distill_jax.run.config import RunConfig
from distill_jax.run.console import write_json
from distill_jax.run.record import (
    ELSEWHERE,
    evaluates_alone,
    inputs,
    record,
    refuse_if_changed,
    refuse_other_inputs,
)
from distill_jax.run.run import DONE_FILE, ROWS_FILE, SETTINGS_FILE, Run, Stage
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.run.workdir import config_to_save, made_workdir
from distill_jax.stages import (
    checks,
    concise,
    distill,
    dpo,
    evaluate,
    evolve,
    executed,
    forecasts,
    injected,
    pretrain,
    prm,
    rl,
    sft,
    solve,
    step_bench,
    step_judge,
    step_labels,
    synthesis,
    traces,
)
from distill_jax.stages.kinds import kind_of, view_of
from distill_jax.training.manifest import write_manifest
from distill_jax.training.progress import clock

# The built-in kinds; importing their modules registers them.
BUILT_IN = (
    pretrain.KIND,
    sft.KIND,
    distill.KIND,
    dpo.KIND,
    rl.KIND,
    traces.KIND,
    synthesis.KIND,
    step_labels.KIND,
    step_judge.KIND,
    executed.KIND,
    injected.KIND,
    prm.KIND,
    step_bench.KIND,
    evolve.KIND,
    concise.KIND,
    solve.KIND,
    evaluate.KIND,
)


def run(config: RunConfig, workdir: Path, *, adopt_from: Path | None = None) -> None:
    """Runs config.stages; a stage's files are in workdir/STAGE, with done.json when complete.

    adopt_from: work directory whose equal stages are taken over first; None: no other.

    Raises:
        ConfigError: a stage of the directory was run with other settings, data or weights.
        Interrupted: asked to stop, by SIGTERM or SIGINT; everything done is saved.
        DistillError: an error of `checks.prepare`, before any stage begins.
    """
    begun = time.perf_counter()
    # A run that is refused before it writes anything leaves no directory.
    with made_workdir(workdir), lock.held(workdir.absolute()), Run(config, workdir) as run:
        if adopt_from is not None:
            _adopt(run, adopt_from)
        prepared = checks.prepare(run)
        write_json(run.workdir / CONFIG_FILE, config_to_save(config, run.workdir))
        if jax.process_index() == 0:
            remove_stale(run.workdir)
            view.save(view_of(run), run.workdir)
        for number, name in enumerate(config.stages):
            if run.stop.due(number):
                raise Interrupted(f"asked to stop before stage {name}; {GO_ON}")
            _run_stage(run, run.stage(name), prepared.get(name))
        run.say(f"all stages took {clock(time.perf_counter() - begun)}")


def _adopt(run: Run, source: Path) -> None:
    if not source.is_dir():
        raise ConfigError(f"--adopt={source}: no such directory", wanted="a work directory")
    taken = adopt(run.config, source, run.workdir) if jax.process_index() == 0 else []
    sharding.barrier("adopted")
    hint = f"; {ELSEWHERE}" if not taken and evaluates_alone(run.config) else ""
    run.say(f"adopted from {source}: {', '.join(taken) or 'no stage is equal'}{hint}")


def _run_stage(run: Run, stage: Stage[Any], prepared: Any) -> None:
    kind, directory = kind_of(stage), run.directory(stage.name)
    if run.is_done(stage.name):
        if not kind.always:
            refuse_if_changed(run, stage)  # a stage that it reads may have been redone just now
            run.say(f"{stage.name}: complete, skipped ({directory})")
            return
        done = read_json(directory / DONE_FILE)
        refuse_other_inputs(run, stage, done["inputs"], inputs(run, stage, contents=True))
        run.say(f"{stage.name}: complete, only what is new or changed is done ({directory})")
        figures = kind.run(run, stage, directory, prepared)
        if figures != done["figures"]:
            write_json(directory / DONE_FILE, {**done, "figures": figures})
        return
    now = record(run, stage, contents=True, rounding=True)
    begun_with = read_json(directory / SETTINGS_FILE) or {}
    refuse_other_inputs(run, stage, begun_with.get("inputs", {}), now.inputs)
    sharding.barrier(f"begin {stage.name}")
    write_manifest(directory, run.config_dict)
    base = run.base_of(stage.name)  # relative if inside: the directory can be moved
    noted = {**now._asdict(), "base": base and str(base).removeprefix(f"{run.workdir}/")}
    write_json(directory / SETTINGS_FILE, noted)
    begun = time.perf_counter()
    forecasts.show(run, stage)
    figures = kind.run(run, stage, directory, prepared)
    seconds = time.perf_counter() - begun
    sharding.barrier(f"done {stage.name}")
    splits = stage.settings.splits()
    done = {
        "stage": stage.name,
        **noted,
        "made": _made(run, directory),
        "figures": figures,
        "seconds": seconds,
        # Of its own splits: which others were read depends on the stages before it.
        "dropped_prompts": {n: c for n, c in run.data.dropped().items() if n in splits},
        "dropped_in_train": {n: c for n, c in run.data.in_train.items() if n in splits},
    }
    write_json(directory / DONE_FILE, done)
    run.say(f"{stage.name}: complete in {seconds:.0f} s ({directory})")


def _made(run: Run, directory: Path) -> dict[str, str]:
    """Digests of the models, adapters and rows below a stage's directory; process 0 reads them.

    "adapter" and "model" are those of a student, "teacher" is that of `teacher/model`.
    """
    if jax.process_index() != 0:
        return {}
    folders = {path.parent for path in directory.glob("**/*.safetensors")}
    named = {folder.relative_to(directory).parts[0]: folder for folder in sorted(folders)}
    if (directory / ROWS_FILE).is_file():
        named[ROWS_FILE] = directory / ROWS_FILE
    return {name: run.remembered.of_model(folder) for name, folder in named.items()}
