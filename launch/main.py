"""The main job: reads a config, starts JAX, runs the stages.

    python -m launch.main --config=configs/rl.py
    python -m launch.main --config=configs/rl.py:smoke --workdir=runs/try --config.rl.steps=20
    python -m launch.main --workdir=runs/try --dry_run

A config is `file[:preset]`; any of its settings can be set with `--config.a.b=value`. Without
--config, a work directory's own is taken. Wrong input ends with one message on standard error and
exit code 2, before any model is loaded.
"""

import contextlib
import os
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.core.host_memory import return_freed_memory_unless_cpu
from distill_jax.run import lock
from distill_jax.run.config import RunConfig, build
from distill_jax.run.given import refuse_ignored
from distill_jax.run.workdir import check_workdir, on_devices_here
from launch import arguments

CONFIG = config_flags.DEFINE_config_file("config", help_string="Config as file[:preset].")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where the run lives; default runs/<preset>, which all stages share; of an experiment "
    "runs/<preset>_<name>.",
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes: call jax.distributed.initialize. On TPU pods and under Slurm it finds the "
    "others by itself; elsewhere give --coordinator_address, --num_processes and --process_id.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0; the same for all."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this one, from 0.", lower_bound=0)
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Directory of compiled programs, kept between runs; default $JAX_COMPILATION_CACHE_DIR or "
    "~/.cache/distill_jax/compiled; empty turns it off.",
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Of launch.main: print for each stage what would be done, and write nothing.",
)
ADOPT = flags.DEFINE_string(
    "adopt",
    None,
    "Of launch.main: work directory whose complete stages with equal settings are taken over "
    "first, as hard links.",
)


def start_distributed() -> None:
    """Joins this process to the others, when asked to; must come before any use of a device.

    Raises:
        ConfigError: some of the three address flags are given and some are not.
    """
    address, count, index = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    if address is not None and count is not None and index is not None:
        if index >= count:
            raise ConfigError(f"process_id={index}", wanted=f"less than num_processes={count}")
        jax.distributed.initialize(address, count, index)
    elif (address, count, index) != (None, None, None):
        raise ConfigError(
            f"coordinator_address={address}, num_processes={count}, process_id={index}",
            wanted="all three, or none",
        )
    elif DISTRIBUTED.value:
        jax.distributed.initialize()


def start_compilation_cache(directory: str | None) -> None:
    """Keeps compiled programs on disk: a second start of the same job compiles nothing."""
    if directory is None:
        default = str(Path.home() / ".cache" / "distill_jax" / "compiled")
        directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", default)
    if not directory:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start_jax() -> None:
    """Begins a job that computes; imports come after it, as wrong settings need none of them."""
    start_distributed()
    return_freed_memory_unless_cpu()
    start_compilation_cache(COMPILATION_CACHE.value)


def start_reading(config: RunConfig) -> RunConfig:
    """`start_jax` for a command that reads what a run has made; the config for the devices here.

    A mesh that the command line sets stays, and is refused where it does not fit.
    """
    start_jax()
    given = config_flags.get_override_values(flags.FLAGS["config"])
    return config if any(name.startswith("mesh.") for name in given) else on_devices_here(config)


def refuse_flags_of_stages() -> None:
    """For the commands that share these flags and run no stage.

    Raises:
        ConfigError: --dry_run or --adopt is given.
    """
    for flag in (DRY_RUN, ADOPT):
        if flag.present:
            raise ConfigError(f"--{flag.name}, which launch.main alone reads", fix="drop it")


def _flags_of_runs() -> list[str]:
    """Flags of this command line that each run of an experiment is given."""
    given = (DISTRIBUTED, COORDINATOR, NUM_PROCESSES, PROCESS_ID, COMPILATION_CACHE)
    return [f"--{flag.name}={flag.value}" for flag in given if flag.present]


def default_workdir(config: RunConfig) -> Path:
    """runs/PRESET: shared by the configs of all stages, so that one finds what another made.

    An experiment has its own, runs/PRESET_NAME.
    """
    name = config.experiment.name or "experiment"
    return Path("runs") / (f"{config.preset}_{name}" if config.experiment.arms else config.preset)


def experiment_lock(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Holds an experiment's directory in process 0; nothing where the number is not known yet.

    This process starts no JAX, so with --distributed alone only the runs' directories are held.
    """
    check_workdir(workdir)  # made first: the lock of a directory is a file in it
    if PROCESS_ID.value or (DISTRIBUTED.value and PROCESS_ID.value is None):
        return contextlib.nullcontext()
    return lock.held_here(workdir)


def workdir_of(config: RunConfig) -> Path:
    """The work directory that the command line names; ConfigError where it is an object store."""
    if WORKDIR.value:
        check_local(WORKDIR.value, "--workdir")
    return Path(WORKDIR.value or default_workdir(config))


def _job(guard: arguments.OneLine) -> None:
    config = build(CONFIG.value)
    workdir = guard.directory = workdir_of(config)
    if DRY_RUN.value and ADOPT.value:
        raise ConfigError("--dry_run with --adopt", wanted="one of them")
    given = set(config_flags.get_override_values(flags.FLAGS["config"]))
    if config.experiment.arms:
        if DRY_RUN.value or ADOPT.value:
            raise ConfigError(
                f"--{'dry_run' if DRY_RUN.value else 'adopt'} with experiment.arms",
                wanted="a config of one run",
                fix="--config.experiment.arms=()",
            )
        from launch import experiment

        with experiment_lock(workdir):
            experiment.run(config, workdir, _flags_of_runs(), given)
        return
    refuse_ignored(config, workdir, given)
    start_jax()
    from distill_jax.run.run import Run
    from distill_jax.stages import dry_run, runner

    if DRY_RUN.value:
        with Run(config, workdir) as run:
            return dry_run.show(run)
    runner.run(config, workdir, adopt_from=Path(ADOPT.value) if ADOPT.value else None)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py or configs/rl.py:smoke")
