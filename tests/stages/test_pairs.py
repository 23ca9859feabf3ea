"""RL student, SFT student and teacher in pairs, and the command that prints them."""

import json
from pathlib import Path

import pytest

from distill_jax.core.errors import CheckpointError
from distill_jax.evaluation import distribution
from distill_jax.run import lock
from distill_jax.run.run import Run
from launch import compare_logits
from tests.stages.small import copy_stages, small

pytestmark = pytest.mark.slow

MODELS = ("teacher", "sft", "rl")


def test_the_command_compares_each_pair(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl", "evaluate")
    compare_logits.main([f"--workdir={workdir}"])
    got = json.loads((workdir / "compare_logits" / "rl.json").read_text())
    assert got["answers_of"] == "rl" and got["problems"] == 4
    assert [(pair["p"], pair["q"]) for pair in got["pairs"]] == [
        ("teacher", "sft"),
        ("teacher", "rl"),
        ("sft", "rl"),
    ]
    # The student on its own answers beside the teacher is what stage evaluate measured.
    measured = json.loads((finished / "evaluate" / "rl.json").read_text())
    # To rounding alone: another compiled program may add in another order.
    assert got["pairs"][1].keys() == {"p", "q", *measured["distribution"]}
    for name, interval in measured["distribution"].items():
        assert got["pairs"][1][name] == pytest.approx(interval, rel=1e-6), name
    near, far = got["pairs"][2]["forward_kl"], got["pairs"][0]["forward_kl"]
    assert 0 < near["mean"] < far["mean"]
    shown = capsys.readouterr().out
    assert (
        "on 4 greedy answers of student after rl (start: sft)" in shown
        and f"{near['mean']:.4f}" in shown
    )

    content = (workdir / "compare_logits" / "rl.json").read_bytes()
    compare_logits.main([f"--workdir={workdir}", "--answers=student_after"])  # an alias
    assert (workdir / "compare_logits" / "rl.json").read_bytes() == content
    compare_logits.main([f"--workdir={workdir}", "--answers=teacher"])
    other = json.loads((workdir / "compare_logits" / "teacher.json").read_text())
    assert other["pairs"][1] != got["pairs"][1]
    # The start of a stage may be a directory.
    start = str(finished / "sft")
    there = distribution.compare_all(Run(small(), workdir), ("teacher", start, "rl"), "rl")
    pairs = [{**pair, "p": 0, "q": 0} for pair in there["pairs"]]
    assert {pair["p"] for pair in there["pairs"]} == {"teacher", start}
    by_name = {(pair["p"], pair["q"]): {**pair, "p": 0, "q": 0} for pair in got["pairs"]}
    assert by_name["sft", "rl"] in pairs and by_name["teacher", "sft"] in pairs
    with lock.held(workdir), pytest.raises(SystemExit) as busy:
        compare_logits.main([f"--workdir={workdir}"])
    assert busy.value.code == 1 and "is in use by" in capsys.readouterr().err


def test_what_is_missing_is_told(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        compare_logits.main([f"--workdir={tmp_path}"])
    assert stopped.value.code == 2
    assert "wanted: the work directory of a run" in capsys.readouterr().err
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    with pytest.raises(CheckpointError, match="rl with teacher, sft in"):
        distribution.compare_all(Run(small(), workdir), MODELS, "rl")
    with pytest.raises(CheckpointError, match=r"sft.checkpoint.jsonl is missing"):
        distribution.compare_all(Run(small(), workdir), MODELS, "sft")
