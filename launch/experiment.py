"""An experiment: every arm with every seed, each run in its own process; then the comparison.

Started by launch.main for settings that name arms (`experiment.arms`), e.g.

    python -m launch.main --config=configs/rewards.py

A complete run is skipped, an incomplete one resumes, a failed one is logged and does not stop the
others. This process never starts JAX: the devices belong to the runs.
"""

import dataclasses
import itertools
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from distill_jax.core.errors import EXIT_INTERRUPTED, ConfigError, DistillError
from distill_jax.core.files import read_json, write_json
from distill_jax.core.settings import to_dict as settings_dict
from distill_jax.experiments import arms as arms_of
from distill_jax.experiments import report, results
from distill_jax.experiments.arms import Arm
from distill_jax.report import markdown
from distill_jax.run.adopt import adopt
from distill_jax.run.config import RunConfig, build, to_dict
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.training.progress import clock
from launch import arguments

# The config that starts a run; the config it was complete with; its output.
_SAVED = arguments.ROOT / "configs" / "saved.py"
_CONFIG, _COMPLETE, _LOG = "config.json", "complete.json", "log.txt"


class Failed(DistillError):
    """Some runs of an experiment are not complete; the others and the report are."""


def run(
    config: RunConfig, workdir: Path, flags: Sequence[str] = (), given: Collection[str] = ()
) -> None:
    """Runs what is not complete, then writes all_results.json, the figure and the report.

    flags: added to each run's command line. given: settings of this command line.

    Raises:
        ConfigError: an arm's settings are wrong, before any run.
        Interrupted: asked to stop; the run in progress has saved itself.
        Failed: some runs failed; all others are complete and reported.
    """
    settings = config.experiment
    arms = arms_of.parse(settings.arms, config)
    strange = set(settings.references) - {arm.name for arm in arms}
    if strange:
        raise ConfigError(f"experiment.references has {strange.pop()}", wanted="names of arms")
    planned = [(arm, seed) for seed in settings.seeds for arm in arms]
    for arm, seed in planned:
        # Wrong settings are reported before the first run.
        made = arms_of.config_of(config, arm, seed)
        if not any(made.plan[name].makes == "results" for name in made.stages):
            got = f"arm {arm.name} has no stage that evaluates"
            raise ConfigError(got, wanted="one, as its last")
    workdir = workdir.absolute()
    arms_of.refuse_ignored(config, arms, workdir, given)
    failed: list[dict[str, Any]] = []
    for number, (arm, seed) in enumerate(planned, 1):
        begun, said = time.perf_counter(), f"[{number}/{len(planned)}] {arm.name}, seed {seed}: "
        log = arms_of.run_directory(workdir, arm.name, seed) / _LOG
        print(f"{said}see {log}", file=sys.stderr, flush=True)
        error = _shared(config, arms, seed, workdir, flags)
        error = error or _one(config, arm, seed, workdir, flags)
        if error:
            failed.append({"arm": arm.name, "seed": seed, "error": error})
        took = clock(time.perf_counter() - begun)
        print(said + (f"failed: {error}" if error else f"complete ({took})"), file=sys.stderr)
    write(config, workdir, failed)
    if failed:
        raise Failed(
            f"{len(failed)} of {len(planned)} runs are not complete, the first: "
            f"{failed[0]['arm']}, seed {failed[0]['seed']}: {failed[0]['error']}",
            fix=f"see {_LOG} in its directory; the same command tries them again",
        )


def write(config: RunConfig, workdir: Path, failed: Sequence[dict[str, Any]]) -> None:
    """all_results.json, comprehensive_comparison.png and experiment_report.md."""
    settings = config.experiment
    arms = arms_of.parse(settings.arms, config)
    names = [arm.name for arm in arms]
    missing = {(run["arm"], run["seed"]) for run in failed}
    rows = [
        results.collect(arms_of.run_directory(workdir, *run), *run)
        for run in itertools.product(names, settings.seeds)
        if run not in missing
    ]
    content = {"experiment": settings_dict(settings), "runs": rows, "failed": list(failed)}
    write_json(workdir / "all_results.json", content)
    command = f"python -m launch.main {shlex.join(sys.argv[1:])}"
    references = settings.references or names[:1]
    found = report.build(arms, references, rows, failed, command=command)
    path = workdir / "experiment_report.md"
    markdown.write(found, path, workdir)
    print(f"report: {path}", file=sys.stderr)


def _shared(
    config: RunConfig, arms: Sequence[Arm], seed: int, workdir: Path, flags: Sequence[str]
) -> str:
    """Runs once what the arms of a seed have in common; the error, or ""."""
    base = arms_of.config_of(config, None, seed)
    common = [arms_of.shared_stages(base, arms_of.config_of(config, a, seed)) for a in arms]
    longest = max(common, key=len)
    if not longest:
        return ""
    directory = arms_of.run_directory(workdir, arms_of.SHARED, seed)
    return _complete(dataclasses.replace(base, stages=longest), directory, flags)


def _one(config: RunConfig, arm: Arm, seed: int, workdir: Path, flags: Sequence[str]) -> str:
    wanted = arms_of.config_of(config, arm, seed)
    directory = arms_of.run_directory(workdir, arm.name, seed)
    adopt(wanted, arms_of.run_directory(workdir, arms_of.SHARED, seed), directory)
    return _complete(wanted, directory, flags)


def _complete(config: RunConfig, directory: Path, flags: Sequence[str]) -> str:
    """Runs the stages of a config in a new process, unless all are complete; the error, or ""."""
    if _all_done(config, directory) and _saved(directory / _COMPLETE) == config:
        return ""
    # Other settings than those of before may be refused: then this is not complete the next time.
    (directory / _COMPLETE).unlink(missing_ok=True)
    write_json(directory / _CONFIG, to_dict(config))
    command = [
        sys.executable, "-m", "launch.main", f"--config={_SAVED}:{directory / _CONFIG}",
        f"--workdir={directory}", *flags,
    ]  # fmt: skip
    with (directory / _LOG).open("ab") as log:
        begin = log.tell()
        code = _wait(command, log)
    if code == 0 and _all_done(config, directory):
        write_json(directory / _COMPLETE, to_dict(config))
        return ""
    output = (directory / _LOG).read_bytes()[begin:].decode("utf-8", errors="replace")
    lines = map(str.strip, output.splitlines())
    said = " / ".join([line for line in lines if line][-3:])
    return f"exit code {code}: {said[-1000:] or 'no output'}"


def _all_done(config: RunConfig, directory: Path) -> bool:
    return all((directory / stage / "done.json").exists() for stage in config.stages)


def _saved(path: Path) -> RunConfig | None:
    """The settings in a file, later ones at their defaults; None where they are none."""
    try:
        return build(read_json(path) or {})
    except ConfigError:
        return None


def _wait(command: Sequence[str], log: Any) -> int:
    """The exit code of a process; signals to stop are passed on to it.

    Raises:
        Interrupted: asked, and the process has ended.
    """
    asked: list[int] = []
    begun: list[subprocess.Popen[bytes]] = []

    def give_on(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        for process in begun:
            process.send_signal(number)

    before = {n: signal.signal(n, give_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        # A new group: the terminal's Ctrl-C reaches only this process, which passes it on.
        begun.append(
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        )
        if asked:
            begun[0].send_signal(asked[0])
        code = begun[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        stopped = Interrupted(f"the experiment was asked to stop; {GO_ON}")
        stopped.exit_code = EXIT_INTERRUPTED if asked[0] == signal.SIGINT else 0
        raise stopped
    return code


if __name__ == "__main__":
    fix = "python -m launch.main --config=configs/rewards.py, or any config with experiment.arms"
    arguments.fail(ConfigError("launch.experiment is a part of launch.main", fix=fix))
