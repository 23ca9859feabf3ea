"""Two processes in one directory, a full disk, object stores: one line each, nothing lost."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import build
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.run import lock
from launch import compare, compare_logits, diagnose, report
from tests.stages.small import ROOT, command, environment, finish, start

pytestmark = pytest.mark.slow
PRETRAIN = "('pretrain',)"


def last_lines(errors: str, count: int = 1) -> list[str]:
    return errors.strip().splitlines()[-count:]


def test_a_second_run_in_one_directory_is_refused_until_the_first_is_killed(tmp_path: Path):
    arguments = command(tmp_path, stages=PRETRAIN, teacher__steps=100_000)
    first = start(arguments)
    try:
        file = lock.lock_file(tmp_path)
        limit = time.monotonic() + 200
        while not (tmp_path / "pretrain" / "teacher" / "metrics.jsonl").exists():
            assert first.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        assert f"process {first.pid} " in file.read_text()
        errors = finish(start(arguments), code=1)
        assert f"is in use by process {first.pid} on " in errors and "fix: wait" in errors
        assert len(errors.strip().splitlines()) == 1
    finally:
        first.kill()
        first.communicate()
    assert file.exists()  # with the text of the killed process
    rows = tmp_path / "pretrain" / "teacher" / "metrics.jsonl"
    rows.unlink()
    again = start(arguments)
    try:
        while not rows.exists() or not rows.read_text():  # in the middle of training
            assert again.poll() is None and time.monotonic() < limit + 200
            time.sleep(0.1)
        assert f"process {again.pid} " in file.read_text()
    finally:
        again.send_signal(signal.SIGTERM)
        errors = finish(again)
    assert "was asked to stop and is saved at step" in errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors and "checkpoint_manager" not in errors
    assert not file.exists()


def can_mount() -> bool:
    made = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False)
    return made.returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="no right to mount a tmpfs")
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path):
    # 200 kB end within the first checkpoint, which orbax writes in threads of its own.
    run = shlex.join(command(tmp_path / "disk" / "run", stages=PRETRAIN, teacher__steps=4))
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=200k tmpfs {tmp_path}/disk
        {run} 2> {tmp_path}/first; echo $? >> {tmp_path}/codes
        mount -o remount,size=50m {tmp_path}/disk
        {run} 2> {tmp_path}/second; echo $? >> {tmp_path}/codes
        ls {tmp_path}/disk/run/pretrain > {tmp_path}/files
    """
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, env=environment(), check=True)
    assert (tmp_path / "codes").read_text().split() == ["1", "0"]
    errors = (tmp_path / "first").read_text()
    assert "Traceback" not in errors and "RESOURCE_EXHAUSTED" not in errors
    (said,) = [x for x in errors.splitlines() if "DiskFullError" in x]
    assert f"{tmp_path}/disk/run" in said and "MB free" in said and "same command goes on" in said
    assert last_lines(errors) == [said]
    assert "done.json" in (tmp_path / "files").read_text().split()


def test_a_full_disk_before_the_first_checkpoint_is_one_line(tmp_path: Path):
    (tmp_path / "pretrain").mkdir()
    run = shlex.join(command(tmp_path, stages=PRETRAIN))
    # /dev/full takes no byte; the file that is written first has the process's number.
    script = f"ln -s /dev/full {tmp_path}/pretrain/run.json.$$.partial; exec {run}"
    errors = finish(start(["sh", "-c", script]), code=1)
    assert len(errors.strip().splitlines()) == 1 and f"the disk is full: {tmp_path}" in errors


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("main", ["--config=configs/rewards.py:smoke", "--workdir=s3://b/x"]),
        ("main", ["--config=configs/rl.py:smoke", "--config.rl.cache.directory=gs://b/x"]),
        ("export_answers", ["--config=configs/rl.py:smoke", "--out=gs://b/x.jsonl"]),
    ],
)
def test_object_stores_are_refused_by_the_jobs(program, arguments):
    errors = finish(start([sys.executable, "-m", f"launch.{program}", *arguments]), code=2)
    (line,) = errors.strip().splitlines()
    assert line.startswith("ConfigError: ") and "object stores are not supported" in line
    assert not (ROOT / "gs:").exists() and not (ROOT / "s3:").exists()


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (compare.main, ["--workdir=gs://b/x"]),
        (compare_logits.main, ["--workdir=gs://b/x"]),
        (report.main, ["--workdir=gs://b/x"]),
        (diagnose.main, ["gs://b/x"]),
    ],
)
def test_object_stores_are_refused_by_the_tools(main, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "object stores are not supported" in capsys.readouterr().err


def test_object_stores_are_refused_as_cache_directories():
    with pytest.raises(ConfigError, match="cache.directory=gs://b"):
        build(CacheSettings, {"directory": "gs://b"})
