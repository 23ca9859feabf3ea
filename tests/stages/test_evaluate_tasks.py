"""Stage evaluate under a task of its own: the same problems, the other stages untouched."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_jax.data.fences import fenced
from distill_jax.run.config import RunConfig
from distill_jax.stages import runner
from distill_jax.tasks import ProgramSettings
from tests.evaluation.scripted import Scripted
from tests.stages import solving
from tests.stages.solving import GOLDS, Setup, Stop, stopping

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]


def say(prompt: str, number: int, attempt: int, key: int) -> str:
    """A program where one is asked for, right for problems 0 and 1; in words for 1 and 2."""
    if "Program it." in prompt:
        return fenced(f"x = {GOLDS[number] if number < 2 else 1}\nprint(x)")
    return f"#### {GOLDS[number] if number in (1, 2) else 1}"


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("setup"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    monkeypatch.setattr(solving, "say", say)
    return solving.scripted(monkeypatch)


def config(setup: Setup, *stages: str) -> RunConfig:
    """A run of task program whose stage evaluate_text puts the problems as task text does."""
    found = setup.config(sampling__max_new_tokens=64, evaluate__samples=2, evaluate__batch=4)
    limits = ProgramSettings(instruction="Program it.", wall_s=30.0, cpu_s=30.0)
    text = dataclasses.replace(found.plan["evaluate"], task="text")
    plan = {**found.plan, "evaluate_text": text}
    return dataclasses.replace(found, task="program", programs=limits, plan=plan, stages=stages)


def result(workdir: Path, stage: str) -> dict[str, Any]:
    return json.loads((workdir / stage / "base.json").read_text())


def test_two_tasks_on_the_same_problems(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(config(setup, "evaluate"), tmp_path / "alone")
    runner.run(config(setup, "evaluate", "evaluate_text"), tmp_path / "both")
    for file in ("base.json", "base.checkpoint.jsonl"):
        alone, both = (tmp_path / name / "evaluate" / file for name in ("alone", "both"))
        assert alone.read_bytes() == both.read_bytes()
    own, text = (result(tmp_path / "both", s) for s in ("evaluate", "evaluate_text"))
    assert [p["id"] for p in own["problems"]] == [p["id"] for p in text["problems"]]
    assert [p["greedy_right"] for p in own["problems"]] == [True, True, False, False]
    assert [p["greedy_right"] for p in text["problems"]] == [False, True, True, False]
    assert own["made_from"]["task"] == "program" and text["made_from"]["task"] == "text"
    assert own["greedy"]["programs"]["ran"] == 1.0 and "programs" not in text["greedy"]
    # Both right answers were literals.
    assert own["sampled"]["programs"]["hardcoded_rate"] == 1.0
    tokens = own["problems"][0]["greedy_tokens"]
    assert tokens == len(scripted[0].tok(own["problems"][0]["greedy"])["input_ids"]) + 1
    assert own["problems"][0]["sampled_tokens"] == [tokens] * 2
    view = json.loads((tmp_path / "both/evaluate/base/evaluation_results.json").read_text())
    assert view["statistics"]["programs"] == own["greedy"]["programs"]
    report = (tmp_path / "both" / "report.md").read_text()
    assert "Tasks program and text on the same problems of test" in report
    assert "of task program (evaluate)" in report and "right but hard-coded" in report


def test_stopped_it_goes_on_to_the_same_result(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    stages = config(setup, "evaluate", "evaluate_text")
    runner.run(stages, tmp_path / "whole")
    with stopping(5), pytest.raises(Stop):  # in the middle of the second stage
        runner.run(stages, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "evaluate_text" / "base.json").exists()
    runner.run(stages, tmp_path / "stopped")
    for stage in ("evaluate", "evaluate_text"):
        one, other = (tmp_path / name / stage / "base.json" for name in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes()
