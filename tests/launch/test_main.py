"""launch.main in this process: arguments, errors, distributed start, cache."""

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import evaluate, presets, rewards
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run.config import RunConfig, build, to_config_dict, to_dict
from distill_jax.run.workdir import config_to_save
from launch import arguments, main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMOKE = "--config=configs/rl.py:smoke"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no --config; fix: e.g. --config=configs/rl.py"),
        (["--workdir=nope"], "no --config, and no run in nope; fix: "),
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
    made = build(evaluate.get_config(str(file)))
    assert {name: made.plan[name] for name in saved.plan} == saved.plan
    # And a stage for each benchmark, which runs where it is named.
    assert made.stages == ("evaluate",) and made.plan["evaluate_aime2024"].benchmark == "aime2024"
    assert made == dataclasses.replace(evaluate.with_benchmarks(saved), stages=("evaluate",))
    other = ["main", "--config=configs/rl.py", f"--workdir={tmp_path}"]
    assert arguments.with_saved_config(other) == other


def overridden(config: ml_collections.ConfigDict, **changes: object) -> RunConfig:
    """The config with overrides, as of a command line: they come before all checks."""
    for name, value in changes.items():
        *groups, last = name.split("__")
        functools.reduce(getattr, groups, config)[last] = value
    return build(config)


def test_the_same_evaluation_again_is_the_same_config(tmp_path: Path) -> None:
    given: dict[str, object] = {
        "evaluate__teacher": False,
        "evaluate__distribution": False,
        "student__path": str(tmp_path / "student"),
        "data__source": "problems.jsonl",
    }
    first = overridden(evaluate.get_config("smoke"), **given)
    file = tmp_path / "config.json"
    for _ in range(2):
        file.write_text(json.dumps(config_to_save(first, tmp_path)))
        assert overridden(evaluate.get_config(str(file)), **given) == first
    assert first.stages == ("evaluate",)
    # A benchmark that a directory was begun with is evaluated again.
    named = first.replace("evaluate_file", teacher=False, distribution=False)
    named = dataclasses.replace(named, stages=("evaluate", "evaluate_file"))
    file.write_text(json.dumps(to_dict(named)))
    assert build(evaluate.get_config(str(file))) == named


def test_overrides_of_an_evaluation_come_before_the_checks(tmp_path: Path) -> None:
    """A directory that was begun without a teacher, by a stage that reads none."""
    begun = overridden(
        to_config_dict(presets.smoke()),
        stages=("sft",),
        student__path=str(tmp_path),
        data__source="problems.jsonl",
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(begun)))
    arguments.check([f"--config=configs/evaluate.py:{file}"], "")
    with pytest.raises(ConfigError, match="teacher.path is empty"):
        overridden(evaluate.get_config(str(file)))
    made = overridden(
        evaluate.get_config(str(file)), evaluate__teacher=False, evaluate__distribution=False
    )
    assert made.stages == ("evaluate",)


def test_right_arguments_pass() -> None:
    argv = ["--workdir", "x", SMOKE, "--config.rl.steps=3", "--config.records.wandb"]
    assert arguments.check(argv, "configs/rl.py") == "configs/rl.py:smoke"


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
    with pytest.raises(SystemExit):
        arguments.guarded(raiser(ZeroDivisionError()), ["main", "rl.steps=3"])
    assert "fix: --config.rl.steps=3" in capsys.readouterr().err


def test_a_setting_without_config_names_the_flag() -> None:
    """The pages write settings without it."""
    command = [sys.executable, "-m", "launch.main", "--config=configs/rl.py:smoke", "--rl.steps=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no flag --rl.steps" in done.stderr and "--config.rl.steps=VALUE" in done.stderr


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


def test_default_workdir() -> None:
    assert main.default_workdir(presets.smoke()) == Path("runs/smoke")
    assert main.default_workdir(build(rewards.get_config())).name.startswith("tiny_")
