"""Stopped anywhere, by SIGKILL or SIGTERM, and run again: the same bits as without the stop."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from distill_jax.run.stop import Interrupted
from distill_jax.stages import evaluate, runner
from distill_jax.stages.rl_step import RLStep
from tests.stages.small import (
    command,
    copy_stages,
    finish,
    rows,
    run_here,
    run_instead,
    small,
    start,
    weights,
)  # fmt: skip

pytestmark = pytest.mark.slow

SFT, RL = 40, 14
HOW: dict[str, Any] = {
    "sft.steps": SFT,
    "rl.steps": RL,
    "rl.algorithm": "ppo",
    "rl.minibatches": 2,
    "rl.eval_every": 4,
    "lora.dropout": 0.1,
    # Everything that a step carries: running statistics, adaptive weights, and what it must not
    # depend on: a cache that is empty after a restart, a reward in a process of its own.
    "rl.rewards.normaliser": "robust",
    "rl.rewards.adaptive": True,
    "rl.rewards.reasoning_weight": 0.1,
    "rl.rewards.format_weight": 0.1,
    "rl.rewards.custom": "tests.stages.own_reward:brevity",
    "rl.curriculum.method": "self_evolving",
    "rl.curriculum.temperature": 0.05,
    "rl.curriculum.progress_weight": 0.5,
    "rl.cache.megabytes": 0.01,
    "rl.cache.rows": 4,
    "checkpoint.every": 3,
    "stages": ("sft", "rl"),
}


def wait_for(process: subprocess.Popen[str], path: Path, step: int) -> None:
    """Until the file holds a row of this step."""
    mark = f'"step": {step},'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-3000:]
        if path.exists() and mark in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.005)
    raise AssertionError(f"no step {step} in {path}")


def kill(workdir: Path, stage: str, step: int) -> None:
    """Runs until a step of a stage is written, and a random moment longer; then kills it."""
    process = start(command(workdir, **HOW))
    try:
        wait_for(process, workdir / stage / "metrics.jsonl", step)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        finish(process, code=-9)
    finally:
        process.kill()
    assert not (workdir / stage / "done.json").exists(), "stopped too late to test anything"


def test_killed_in_both_stages_and_terminated(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = copy_stages(finished, tmp_path / "whole", "pretrain")
    run_here(whole, **HOW)
    broken = copy_stages(finished, tmp_path / "broken", "pretrain")

    moments = [random.randint(2, 15), random.randint(2, 5)]
    print("stopped after steps", moments)
    kill(broken, "sft", moments[0])
    kill(broken, "rl", moments[1])
    real = RLStep.__call__

    def terminated(self: RLStep, state: Any, step: int) -> Any:
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(RLStep, "__call__", terminated)
        with pytest.raises(Interrupted) as stopped:
            run_here(broken, **HOW)
    assert str(stopped.value) == (
        f"rl was asked to stop and is saved at step 9 of {RL}; run the same command again to go on"
    )
    capsys.readouterr()
    run_here(broken, **HOW)
    errors = capsys.readouterr().err
    assert "rl: resuming after step" in errors and "sft: complete, skipped" in errors

    for stage in ("sft", "rl"):
        assert weights(broken, stage) == weights(whole, stage), stage
        assert rows(broken, stage) == rows(whole, stage), stage
    completions = [w / "rl" / "completions.jsonl" for w in (broken, whole)]
    assert completions[0].read_bytes() == completions[1].read_bytes()
    assert [row["step"] for row in rows(whole, "rl")] == list(range(RL + 1))
    saved = [json.loads(p.read_text()) for p in (whole / "rl").glob("adaptive_weights_step_*.json")]
    assert {one["step"] for one in saved} == {*range(3, RL + 1, 3), RL}
    for one in saved:
        assert one["adaptive_weights"]["correctness"] == 1.0
        assert 0.05 <= one["adaptive_weights"]["format"] <= 0.2
        assert "rewards/custom/mean" in one["combination_stats"]
    starts = json.loads((broken / "rl" / "run.json").read_text())["starts"]
    assert len(starts) == 3


def test_sigterm_before_a_stage_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    run_instead(monkeypatch, "pretrain", leave)
    with pytest.raises(Interrupted, match="before stage sft") as error:
        runner.run(small(), tmp_path)
    assert error.value.exit_code == 0
    assert (tmp_path / "pretrain" / "done.json").exists() and not (tmp_path / "sft").exists()


def test_sigterm_in_evaluation(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl")
    real = evaluate._evaluate

    def interrupted(run: Any, settings: Any, subject: Any, *rest: Any) -> dict[str, Any]:
        if subject.name == "sft":
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, settings, subject, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_evaluate", interrupted)
        with pytest.raises(Interrupted, match="sft is not complete"):
            runner.run(small(), workdir)
    made = {p.name for p in (workdir / "evaluate").glob("*.json")}
    assert made == {"run.json", "settings.json", "base.json", "teacher.json"}
    runner.run(small(), workdir)
    for name in ("teacher", "base", "sft", "rl"):
        mine, whole = (w / "evaluate" / f"{name}.json" for w in (workdir, finished))
        assert mine.read_bytes() == whole.read_bytes()


def test_killed_in_evaluation(finished: Path, tmp_path: Path) -> None:
    how = {"stages": ("evaluate",), "evaluate.batch": 2, "evaluate.problems": 16}
    runs = [
        copy_stages(finished, tmp_path / name, "pretrain", "sft", "rl") for name in ("cut", "whole")
    ]
    cut, whole = runs
    run_here(whole, **how)
    killed = start(command(cut, **how))
    path = cut / "evaluate" / "sft.checkpoint.jsonl"
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    finish(killed, code=-9)
    assert not (path.parent / "sft.json").exists(), "killed too late to test anything"
    kept = path.read_bytes()
    run_here(cut, **how)
    whole_lines = kept[: kept.rindex(b"\n") + 1]
    assert path.read_bytes().startswith(whole_lines), "drawn again"
    for name in ("teacher", "base", "sft", "rl"):
        for file in (f"{name}.json", f"{name}.checkpoint.jsonl"):
            assert (cut / "evaluate" / file).read_bytes() == (
                whole / "evaluate" / file
            ).read_bytes()
