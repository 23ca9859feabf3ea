"""Stage distill broken off or killed goes on to the same bits."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from distill_jax.stages import runner
from distill_jax.stages.distill_step import DistillStep
from tests.stages.distilled import WAYS, Trained, way
from tests.stages.small import command, copy_stages, finish, rows, run_here, start, weights

pytestmark = pytest.mark.slow


def equal(one: Path, other: Path) -> None:
    assert weights(one, "distill") == weights(other, "distill")
    assert rows(one, "distill") == rows(other, "distill")
    texts = [(w / "distill" / "completions.jsonl").read_bytes() for w in (one, other)]
    assert texts[0] == texts[1]


def test_broken_off_and_resumed_gives_the_same_bits(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(trained["mixed"], tmp_path / "run", "pretrain", "sft")
    config, real = way("mixed", checkpoint__every=2), DistillStep.__call__

    def breaks(self: DistillStep, state: Any, step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return real(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(DistillStep, "__call__", breaks)
        with pytest.raises(KeyboardInterrupt):
            runner.run(config, workdir)
    assert not (workdir / "distill" / "done.json").exists()
    runner.run(config, workdir)
    equal(workdir, trained["mixed"])


def test_killed_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {f"distill.{name}".replace("__", "."): value for name, value in WAYS["mixed"].items()}
    how |= {"stages": ("distill",), "distill.steps": 30, "checkpoint.every": 3}
    how["lora.dropout"] = 0.1
    whole = copy_stages(finished, tmp_path / "whole", "pretrain")
    run_here(whole, **how)
    broken = copy_stages(finished, tmp_path / "broken", "pretrain")
    process = start(command(broken, **how))
    mark, file = f'"step": {random.randint(4, 12)},', broken / "distill" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    # A checkpoint gets its name, its step alone, when it is whole.
    while not (
        any(path.name.isdigit() for path in (broken / "distill" / "checkpoints").glob("*"))
        and mark in file.read_text(encoding="utf-8")
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    finish(process, code=-9)
    assert not (broken / "distill" / "done.json").exists(), "stopped too late to test anything"
    capsys.readouterr()
    run_here(broken, **how)
    assert "distill: resuming after step" in capsys.readouterr().err
    equal(broken, whole)
