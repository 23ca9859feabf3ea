"""Command lines: wrong input ends with one message; right input reaches the stages."""

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from distill_jax.run import lock
from tests.launch import batch
from tests.stages.small import ROOT, command, environment

pytestmark = pytest.mark.slow

SMOKE = "--config=configs/rl.py:smoke"
PRETRAIN = "('pretrain',)"
# Runs launch.main with the stages replaced by a report of what reached them.
DRIVER = """
import jax
from distill_jax.stages import runner
from launch import arguments, main
def run(config, workdir, *, adopt_from):
    cache = jax.config.jax_compilation_cache_dir
    print("reached", config.preset, config.plan["rl"].steps, workdir, cache, adopt_from, flush=True)
    {body}
runner.run = run
arguments.run_app(main._job, "configs/rl.py")
"""
# The same with the runs of an experiment replaced: all of them fail.
EXPERIMENT = """
from launch import arguments, experiment, main
def wait(command, log):
    print("run", *command[3:], (main.workdir_of(main.CONFIG.value) / ".lock").exists(), flush=True)
    return 3
experiment._wait = wait
arguments.run_app(main._job, "configs/rewards.py")
"""
ARMS = "--config.experiment.arms="
REWARDS = (
    "--config=configs/rewards.py:smoke",
    "--config.experiment.seeds=(0,)",
    "--config.experiment.references=()",
)

# Two processes of two devices each: a sum over all four, a checkpoint that both write, records.
TWO = """
    import jax.numpy as jnp, numpy as np
    from jax.experimental import multihost_utils
    from distill_jax.core import sharding
    from distill_jax.training.checkpoint import Checkpointer
    from distill_jax.training.records import Recorder
    mesh = sharding.make_mesh(config.mesh)
    x = sharding.place({"x": np.arange(8, dtype=np.float32)}, sharding.batch_sharding(mesh))
    total = jax.jit(lambda t: t["x"].sum(), out_shardings=sharding.replicated(mesh))(x)
    print("devices", jax.device_count(), "processes", jax.process_count(), "sum", float(total))
    with Checkpointer(workdir / "checkpoints") as saver:
        saver.save(1, x)
        saver.save(2, jax.tree.map(lambda leaf: leaf * 2, x))
    multihost_utils.sync_global_devices("saved")
    if jax.process_index() == 0:
        for path in (workdir / "checkpoints" / "2" / "meta").iterdir():
            path.unlink()
    multihost_utils.sync_global_devices("damaged")
    with Checkpointer(workdir / "checkpoints") as reader:
        restored = reader.restore_latest(x)
    print("restored", restored.step, sharding.fetch(restored.state)["x"].tolist())
    with Recorder(workdir) as recorder:
        recorder.metrics(1, {"process": jax.process_index()})
"""
# /dev/full takes no byte; the file that is written first has the process's number.
DISK_FULL = """
import os, runpy
os.symlink("/dev/full", f"{place}/pretrain/run.json.{{os.getpid()}}.partial")
runpy.run_module("launch.main", run_name="__main__", alter_sys=True)
"""
# On object stores, by the module's name.
REFUSED = {
    "main": ["--config=configs/rewards.py:smoke", "--workdir=s3://b/x"],
    "main, cache": ["--config=configs/rl.py:smoke", "--config.rl.cache.directory=gs://b/x"],
    "export_answers": ["--config=configs/rl.py:smoke", "--out=gs://b/x.jsonl"],
}
# Commands that share the flags of launch.main and run no stage.
NO_STAGE = ("chat", "export_answers", "solve", "synthesise")
# In the middle of training it saves the text of the lock and gets SIGTERM.
TERMINATED = """
import os, pathlib, runpy, signal, threading, time
def watch():
    rows = pathlib.Path("{place}/pretrain/teacher/metrics.jsonl")
    while not rows.exists() or not rows.read_text():
        time.sleep(0.1)
    print(os.getpid(), pathlib.Path("{place}/.lock").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("launch.main", run_name="__main__", alter_sys=True)
"""
WRONG = {
    "name": (
        [SMOKE, "--config.rl.stpes=3"],
        "ConfigError: unknown setting rl.stpes; fix: did you mean",
    ),
    "value": ([SMOKE, "--config.rl.steps=-3"], "ConfigError: rl.steps=-3; wanted: at least 1"),
    "number": ([SMOKE, "--config.rl.steps=abc"], "invalid literal for int() with base 10: 'abc'"),
    "not read": (
        [SMOKE, "--config.rl.rewards.intrinsic_weight=0", "--config.rl.cache.megabytes=9"],
        "ConfigError: rl.cache.megabytes=9.0 with rl.rewards.intrinsic_weight=0.0; wanted: its",
    ),
    "dry run": (
        [SMOKE, "--dry_run", "--adopt=x"],
        "ConfigError: --dry_run with --adopt; wanted: one of",
    ),
    "dry run of arms": (
        ["--config=configs/rewards.py:smoke", "--dry_run"],
        "ConfigError: --dry_run with experiment.arms; wanted: a config of one run",
    ),
    "arms": (
        [*REWARDS, ARMS + "('fine: rl.steps=3', \"bad: stages=('sft',)\")", "--workdir=@/arms"],
        "ConfigError: arm bad has no stage that evaluates",
    ),
}


class Launched(NamedTuple):
    root: Path
    done: dict[str, batch.Done]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Every command line of this file; an @ in one stands for a directory."""
    root = tmp_path_factory.mktemp("launched")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"--coordinator_address=127.0.0.1:{probe.getsockname()[1]}"
    program = ["-c", DRIVER.format(body="pass")]
    commands = {name: [*program, *words] for name, (words, _) in WRONG.items()}
    cache = "--compilation_cache=@/cache"
    commands["default"] = [*program, SMOKE, "--config.rl.steps=7", cache]
    commands["adopts"] = [*program, SMOKE, cache, "--adopt=runs/other", "--workdir=w"]
    arms = ARMS + "('a: rl.steps=3', 'b: rl.steps=4')"
    commands["experiment"] = ["-c", EXPERIMENT, *REWARDS, arms, cache, "--workdir=@/experiment"]
    for i in range(2):
        which = (SMOKE, "--workdir=@/two", address, "--num_processes=2", f"--process_id={i}")
        commands[f"two, {i}"] = ["-c", DRIVER.format(body=TWO.strip()), *which]
    placed = {n: [word.replace("@", str(root)) for word in words] for n, words in commands.items()}
    for name, words in REFUSED.items():
        placed[name] = ["-m", f"launch.{name.partition(',')[0]}", *words]
    for name in NO_STAGE:
        words = [SMOKE, f"--workdir={root / name}", "--dry_run"]
        placed[f"no stage, {name}"] = ["-m", f"launch.{name}", *words]
    (root / "full" / "pretrain").mkdir(parents=True)
    full = command(root / "full", stages=PRETRAIN)[3:]
    placed["full"] = ["-c", DISK_FULL.format(place=root / "full"), *full]
    (root / "busy").mkdir()
    placed["busy"] = command(root / "busy", stages=PRETRAIN)[1:]
    (root / "killed").mkdir()
    (root / "killed" / ".lock").write_text("process 1 on somewhere\n")  # as kill -9 leaves it
    killed = command(root / "killed", stages=PRETRAIN, teacher__steps=100_000)[3:]
    placed["killed"] = ["-c", TERMINATED.format(place=root / "killed"), *killed]
    forecast = ("--config=configs/rl.py:qwen_7b", "--devices=8", "--device_gb=20")
    placed["forecast"] = ["-m", "launch.forecast", *forecast]
    placed["forecast, tpu"] = ["-m", "launch.forecast", *forecast, "--accelerator=tpu"]
    with lock.held_here(root / "busy"):
        return Launched(root, batch.run(placed, environment(devices=2)))


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_one_message_and_code_2(launched: Launched, case: str) -> None:
    done = launched.done[case]
    assert done.code == 2
    assert WRONG[case][1] in done.stderr and "Traceback" not in done.stderr
    assert "reached" not in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (launched.root / "arms").exists() or not [*(launched.root / "arms").iterdir()]


def test_overrides_workdir_and_cache_reach_the_stages(launched: Launched) -> None:
    done, cache = launched.done["default"], launched.root / "cache"
    assert done.code == 0, done.stderr
    assert done.stdout == f"reached smoke 7 runs/smoke {cache} None\n"
    done = launched.done["adopts"]
    assert done.stdout == f"reached smoke 3 w {cache} runs/other\n", done.stderr


def test_runs_of_an_experiment_are_given_its_flags(launched: Launched) -> None:
    done, root = launched.done["experiment"], launched.root
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert [words[2:] for words in lines] == [
        [f"--workdir={root}/experiment/shared/seed_0", f"--compilation_cache={root}/cache", "True"]
        for _ in "ab"
    ], done.stderr
    assert "a, seed 0: failed: exit code 3" in done.stderr
    assert done.code == 2 and "Failed: 2 of 2 runs are not complete" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_on_loopback(launched: Launched) -> None:
    both = [launched.done[f"two, {i}"] for i in range(2)]
    for done in both:
        assert done.code == 0, done.stderr
        assert "devices 4 processes 2 sum 28.0" in done.stdout
        assert "restored 1 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]" in done.stdout
    # Process 0 alone writes records and tells of the damage.
    rows = (launched.root / "two" / "metrics.jsonl").read_text()
    assert rows == '{"step": 1, "process": 0}\n'
    assert ["damaged" in done.stderr for done in both] == [True, False]


def one_line(done: batch.Done, code: int) -> str:
    assert done.code == code, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_second_run_in_one_directory_is_refused(launched: Launched) -> None:
    line = one_line(launched.done["busy"], code=1)
    assert f"is in use by process {os.getpid()} on " in line and "fix: wait" in line
    assert [*(launched.root / "busy").iterdir()] == []


def test_a_run_takes_over_from_a_killed_one_and_is_saved_by_sigterm(launched: Launched) -> None:
    code, noted, errors = launched.done["killed"]
    assert code == 0, errors
    own, _, text = noted.partition(" ")
    assert text.startswith(f"process {own} on ")
    assert "was asked to stop and is saved at step" in errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors and "checkpoint_manager" not in errors
    assert not (launched.root / "killed" / ".lock").exists()


def test_a_full_disk_before_the_first_checkpoint_is_one_line(launched: Launched) -> None:
    line = one_line(launched.done["full"], code=1)
    assert f"the disk is full: {launched.root / 'full'}" in line


@pytest.mark.parametrize("name", REFUSED)
def test_object_stores_are_refused_by_the_jobs(launched: Launched, name: str) -> None:
    line = one_line(launched.done[name], code=2)
    assert line.startswith("ConfigError: ") and "object stores are not supported" in line
    assert not (ROOT / "gs:").exists() and not (ROOT / "s3:").exists()


@pytest.mark.parametrize("name", NO_STAGE)
def test_flags_of_stages_are_refused_by_commands_without(launched: Launched, name: str) -> None:
    done = launched.done[f"no stage, {name}"]
    assert done.code == 2 and not (launched.root / name).exists()
    assert done.stderr == "ConfigError: --dry_run, which launch.main alone reads; fix: drop it\n"


def test_forecast(launched: Launched) -> None:
    code, found, errors = launched.done["forecast"]
    assert code == 0, errors
    sft, rl = json.loads(found)
    assert (sft["stage"], rl["stage"], rl["devices"]) == ("sft", "rl", 8)
    assert "teacher weights" in errors and "WARNING: stage rl" in errors
    assert "WARNING: stage sft" not in errors
    code, of_tpu, errors = launched.done["forecast, tpu"]
    assert code == 0, errors
    assert json.loads(of_tpu)[0]["peak"] < 0.9 * sft["peak"]
