"""Two processes in one directory, a full disk, object stores: one line each, nothing lost."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import build
from distill_jax.rewards.teacher_cache import CacheSettings
from launch import compare, compare_logits, diagnose, report
from tests.stages.small import ROOT, command, environment, run_here

pytestmark = pytest.mark.slow
PRETRAIN = "('pretrain',)"


def can_mount() -> bool:
    made = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False)
    return made.returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="no right to mount a tmpfs")
def test_a_full_disk_is_one_line_and_the_same_run_goes_on(tmp_path: Path):
    # 200 kB end within the first checkpoint, which orbax writes in threads of its own.
    run = shlex.join(command(tmp_path / "disk" / "run", stages=PRETRAIN, teacher__steps=4))
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=200k tmpfs {tmp_path}/disk
        {run} 2> {tmp_path}/errors; echo $? > {tmp_path}/code
        cp -a {tmp_path}/disk/run {tmp_path}/left
    """
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, env=environment(), check=True)
    errors = (tmp_path / "errors").read_text()
    assert (tmp_path / "code").read_text() == "1\n", errors
    assert "Traceback" not in errors and "RESOURCE_EXHAUSTED" not in errors
    (said,) = [x for x in errors.splitlines() if "DiskFullError" in x]
    assert f"{tmp_path}/disk/run" in said and "MB free" in said and "same command goes on" in said
    assert errors.strip().splitlines()[-1] == said
    # What is left there, where there is room.
    assert (tmp_path / "left" / "pretrain" / "run.json").exists()
    run_here(tmp_path / "left", stages=("pretrain",), teacher__steps=4)
    assert (tmp_path / "left" / "pretrain" / "done.json").exists()


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
