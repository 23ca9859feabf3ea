"""launch.main: wrong input ends with one message and code 2; right input reaches the stages."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import evaluate, presets, rewards
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run.config import build, to_dict
from launch import arguments, main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMOKE = "--config=configs/rl.py:smoke"

# Runs launch.main with the stages replaced by a report of what reached them.
DRIVER = """
import sys
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


def launch(
    *arguments: str, body: str = "pass", cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRIVER.format(body=body), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), **env},
    )


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no --config; fix: e.g. --config=configs/rl.py"),
        (["--config=configs/none.py"], "no config file configs/none.py; wanted: "),
        (["--config=configs/rl.py:"], "preset '' of configs/rl.py; wanted: one of tiny"),
        (["--config=configs/rl.py:hue"], "preset 'hue' of configs/rl.py; wanted: one of tiny"),
        ([SMOKE, "--config.rl.stpes=3"], "unknown setting rl.stpes; fix: did you mean rl.steps?"),
        ([SMOKE, "--config.steps", "3"], "unknown setting steps; fix: did you mean "),
        (["--config", "configs/rl.py:smoke", "--config.trl.x=3"], "unknown setting trl.x; fix: "),
        ([SMOKE, "--noconfig.records.wnadb"], "did you mean records.wandb?"),
        (["--config=tests/conftest.py"], "config tests/conftest.py has no get_config"),
    ],
)
def test_wrong_arguments_are_found_before_parsing(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        arguments.check(argv, "configs/rl.py")
    assert message in str(error.value)


def test_evaluate_takes_the_config_of_the_directory(tmp_path: Path) -> None:
    saved, file = presets.smoke().replace("rl", steps=7), tmp_path / "config.json"
    argv = ["main", "--config", "configs/evaluate.py:tiny", f"--workdir={tmp_path}", "--dry_run"]
    assert arguments.with_saved_config(argv) == argv
    file.write_text(json.dumps(to_dict(saved)))
    given = arguments.with_saved_config(argv)
    assert given == [*argv[:2], f"configs/evaluate.py:{file}", *argv[3:]]
    assert arguments.check(given[1:], "") == f"configs/evaluate.py:{file}"
    assert build(evaluate.get_config(str(file))) == dataclasses.replace(saved, stages=("evaluate",))
    other = ["main", "--config=configs/rl.py", f"--workdir={tmp_path}"]
    assert arguments.with_saved_config(other) == other


def test_right_arguments_pass() -> None:
    argv = ["--workdir", "x", SMOKE, "--config.rl.steps=3", "--config.records.wandb"]
    assert arguments.check(argv, "configs/rl.py") == "configs/rl.py:smoke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [SMOKE, "--config.rl.stpes=3"],
            "ConfigError: unknown setting rl.stpes; fix: did you mean",
        ),
        ([SMOKE, "--config.rl.steps=-3"], "ConfigError: rl.steps=-3; wanted: at least 1"),
        ([SMOKE, "--config.rl.steps=abc"], "invalid literal for int() with base 10: 'abc'"),
        ([SMOKE, "--dry_run", "--adopt=x"], "ConfigError: --dry_run with --adopt; wanted: one of"),
        (
            ["--config=configs/rewards.py:smoke", "--dry_run"],
            "ConfigError: --dry_run with experiment.arms; wanted: a config of one run",
        ),
    ],
)
def test_wrong_input_ends_with_one_message_and_code_2(arguments: list[str], message: str) -> None:
    done = launch(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert "reached" not in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("row 3", fix="mend it"), 2, "DataError: row 3; fix: mend it"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on"),
    ],
)
def test_errors_of_the_stages_are_told_alike(
    parsed: None,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        arguments.guarded(raiser(error), ["main"])
    assert stop.value.code == code and capsys.readouterr().err == message + "\n"


def test_a_defect_keeps_its_traceback(parsed: None) -> None:
    with pytest.raises(ZeroDivisionError):
        arguments.guarded(raiser(ZeroDivisionError("a defect")), ["main"])


def raiser(error: BaseException):
    def run(guard: arguments.OneLine) -> None:
        raise error

    return run


def test_a_stray_argument_is_refused(parsed: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.guarded(raiser(ZeroDivisionError()), ["main", "smoke"])
    assert "stray argument 'smoke'" in capsys.readouterr().err


@pytest.fixture
def parsed() -> Iterator[None]:
    flags.FLAGS.mark_as_parsed()
    yield
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process_id": 1}, "wanted: all three, or none"),
        ({"coordinator_address": "a:1", "num_processes": 2}, "wanted: all three, or none"),
        (
            {"coordinator_address": "a:1", "num_processes": 2, "process_id": 2},
            "process_id=2; wanted: less than num_processes=2",
        ),
    ],
)
@pytest.mark.usefixtures("parsed")
def test_half_an_address_is_refused(given: dict[str, Any], message: str) -> None:
    with flagsaver.as_parsed(**{name: str(value) for name, value in given.items()}):
        with pytest.raises(ConfigError) as error:
            main.start_distributed()
    assert message in str(error.value)


@pytest.mark.usefixtures("parsed")
@pytest.mark.parametrize("asked", [True, False])
def test_pods_initialise_without_addresses(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: calls.append(a))
    with flagsaver.as_parsed(distributed=str(asked).lower()):
        main.start_distributed()
    assert calls == ([()] if asked else [])


def test_overrides_workdir_and_cache_reach_the_stages(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    done = launch(SMOKE, "--config.rl.steps=7", f"--compilation_cache={cache}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"reached smoke 7 runs/smoke {cache} None\n"
    done = launch(SMOKE, f"--compilation_cache={cache}", "--adopt=runs/other", "--workdir=w")
    assert done.stdout == f"reached smoke 3 w {cache} runs/other\n", done.stderr


def test_compilation_cache_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.__setitem__(name, value))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    main.start_compilation_cache(None)
    assert kept["jax_compilation_cache_dir"] == str(tmp_path / ".cache/distill_jax/compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    main.start_compilation_cache(None)
    assert kept["jax_compilation_cache_dir"] == "/elsewhere"
    main.start_compilation_cache("")
    assert kept["jax_enable_compilation_cache"] is False


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


def test_two_processes_on_loopback(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER.format(body=TWO.strip()), SMOKE, f"--workdir={tmp_path}",
             f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    for process, (out, err) in zip(both, outputs, strict=True):
        assert process.returncode == 0, err
        assert "devices 4 processes 2 sum 28.0" in out
        assert "restored 1 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]" in out
    # Process 0 alone writes records and tells of the damage.
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "process": 0}\n'
    assert ["damaged" in err for _, err in outputs] == [True, False]


def test_default_workdir() -> None:
    assert main.default_workdir(presets.smoke()) == Path("runs/smoke")
    assert main.default_workdir(build(rewards.get_config())).name.startswith("tiny_")
