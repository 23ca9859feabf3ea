"""Stopped anywhere, by SIGKILL or SIGTERM, and run again: the same bits as without the stop."""

import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distill_jax.run.stop import Interrupted
from distill_jax.stages import evaluate, runner
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.rl_step import RLStep
from tests.stages import forks
from tests.stages.distilled import WAYS
from tests.stages.forks import Job, Kill
from tests.stages.small import copy_stages, rows, run_here, run_instead, small, weights

# The first test has all runs before it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SFT, RL, DISTILL = 9, 10, 10
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


SAVED = "distill/checkpoints/3/commit_success.txt"
DISTILL_HOW: dict[str, Any] = {
    **{f"distill.{name}": value for name, value in WAYS["mixed"].items()},
    "distill.steps": DISTILL,
    "lora.dropout": 0.1,
    "checkpoint.every": 3,
    "stages": ("distill",),
}
EVALUATE_HOW: dict[str, Any] = {
    "stages": ("evaluate",),
    "evaluate.batch": 2,
    "evaluate.problems": 16,
    # Where answers are kept; the comparison with the teacher comes after them.
    "evaluate.distribution": False,
}


class Pair(NamedTuple):
    """A work directory whose run was killed, and one whose run was not."""

    broken: Path
    whole: Path


@pytest.fixture(scope="module")
def killed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Runs killed, some of them in many stages, next to what they are compared with."""
    root = tmp_path_factory.mktemp("killed")
    before = {
        "rl": (HOW, ("pretrain",)),
        "distill": (DISTILL_HOW, ("pretrain",)),
        "evaluate": (EVALUATE_HOW, ("pretrain", "sft")),
    }
    pairs = {}
    for name, (how, stages) in before.items():
        broken, whole = (copy_stages(finished, root / name / x, *stages) for x in ("cut", "whole"))
        run_here(whole, **how)
        pairs[name] = Pair(broken, whole)

    def job(name: str, file: str, lines: int, hold: int = 0, saved: str = "") -> list[Job]:
        print(f"{file} has {lines} lines when {name} is killed")
        kill = Kill(file, lines, hold, saved)
        return [Job(str(pairs[name].broken), before[name][0], kill=tuple(kill))]

    forks.run(
        job("rl", "sft/metrics.jsonl", random.randint(2, 7), SFT - 1),
        # One row is that of step 0.
        job("rl", "rl/metrics.jsonl", 1 + random.randint(2, 5), 6),
        job("distill", "distill/metrics.jsonl", 1 + random.randint(4, 6), 7, SAVED),
        job("evaluate", "evaluate/sft.checkpoint.jsonl", 4),
    )
    for stage, name in (("rl", "rl"), ("distill", "distill")):
        assert not (pairs[name].broken / stage / "done.json").exists()
    return pairs


def equal(pair: Pair, stage: str) -> None:
    assert weights(pair.broken, stage) == weights(pair.whole, stage), stage
    assert rows(pair.broken, stage) == rows(pair.whole, stage), stage


def same_bytes(pair: Pair, file: str) -> None:
    assert (pair.broken / file).read_bytes() == (pair.whole / file).read_bytes(), file


def test_killed_in_both_stages_and_terminated(
    killed: dict[str, Pair], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = killed["rl"]
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
        equal(killed["rl"], stage)
    same_bytes(killed["rl"], "rl/completions.jsonl")
    assert [row["step"] for row in rows(whole, "rl")] == list(range(RL + 1))
    saved = [json.loads(p.read_text()) for p in (whole / "rl").glob("adaptive_weights_step_*.json")]
    assert {one["step"] for one in saved} == {*range(3, RL + 1, 3), RL}
    for one in saved:
        assert one["adaptive_weights"]["correctness"] == 1.0
        assert 0.05 <= one["adaptive_weights"]["format"] <= 0.2
        assert "rewards/custom/mean" in one["combination_stats"]
    starts = json.loads((broken / "rl" / "run.json").read_text())["starts"]
    assert len(starts) == 3


def test_killed_and_broken_off_in_distill(
    killed: dict[str, Pair], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, real = killed["distill"].broken, DistillStep.__call__

    def breaks(self: DistillStep, state: Any, step: int) -> Any:
        if step == 8:
            raise KeyboardInterrupt
        return real(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(DistillStep, "__call__", breaks)
        with pytest.raises(KeyboardInterrupt):
            run_here(broken, **DISTILL_HOW)
    assert not (broken / "distill" / "done.json").exists()
    # Of step 6 if its checkpoint was whole when the kill came.
    assert re.search("distill: resuming after step [36] of", capsys.readouterr().err)
    run_here(broken, **DISTILL_HOW)
    assert "distill: resuming after step 6" in capsys.readouterr().err
    equal(killed["distill"], "distill")
    same_bytes(killed["distill"], "distill/completions.jsonl")


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


def test_killed_in_evaluation(killed: dict[str, Pair]) -> None:
    cut = killed["evaluate"].broken
    path = cut / "evaluate" / "sft.checkpoint.jsonl"
    assert not (path.parent / "sft.json").exists(), "killed too late to test anything"
    kept = path.read_bytes()
    run_here(cut, **EVALUATE_HOW)
    whole_lines = kept[: kept.rindex(b"\n") + 1]
    assert path.read_bytes().startswith(whole_lines), "drawn again"
    for name in ("teacher", "base", "sft"):
        for file in (f"{name}.json", f"{name}.checkpoint.jsonl"):
            same_bytes(killed["evaluate"], f"evaluate/{file}")
