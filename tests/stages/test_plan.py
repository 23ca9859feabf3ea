"""A plan with a kind that this file alone defines, and with two stages of one kind."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.settings import setting
from distill_jax.forecast.memory import Job
from distill_jax.report.panels import Panel
from distill_jax.run.config import RunConfig, build, to_dict
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import TrainSettings
from distill_jax.stages import checks, export_files, forecasts, loop, runner, supervised
from distill_jax.stages.kinds import KINDS, Kind, register
from distill_jax.stages.settings import STUDENT_TRAINING
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.step import make_update
from tests.stages import small as runs
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow

STEPS = 4
# Steps of the toy that are broken off in the middle, once each.
BREAK_AT: list[int] = []


@dataclass(frozen=True)
class ToySettings(TrainSettings, kind="toy", makes="student"):
    """Supervised training on a part of the rows."""

    start: str = setting("base", "Student to start from.", ref="student")
    batch_size: int = setting(8, "Rows a step.", low=1)

    def shared(self) -> tuple[str, ...]:
        return (*STUDENT_TRAINING, "sampling.max_new_tokens")

    def roles(self) -> tuple[str, ...]:
        return ("student",)


def check(run: Run, stage: Stage[ToySettings]) -> None:
    checks.check_batch(run, stage)
    checks.check_training(stage)


def prepare(run: Run, stage: Stage[ToySettings]) -> supervised.ExampleRows:
    return supervised.ExampleRows(run, answer_only=0.0, seed=run.seed(stage))


def train(
    run: Run, stage: Stage[ToySettings], directory: Path, given: supervised.ExampleRows
) -> dict[str, Any]:
    s, student = stage.settings, run.load_student(stage.settings.start)
    tx = optimizer.make(s.optimizer, s.updates())
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, run.key(stage), run.mesh)
    update = make_update(*losses.sft(student.model, run.data.vocab), tx, run.mesh, shardings)
    inner = supervised.examples_step(run, given, update, frozen, s.batch_size, steps=s.steps)

    def step(state: Any, number: int) -> Any:
        if number in BREAK_AT:
            BREAK_AT.remove(number)
            raise KeyboardInterrupt
        state, metrics, completions = inner(state, number)
        return state, {**metrics, "toy/answer": 42.0}, completions

    state = loop.train(run, stage.name, directory, s, state, step)
    return export_files.save_student(run, stage, directory, student.model.config, state)


TOY = register(
    Kind(
        ToySettings,
        train,
        check=check,
        prepare=prepare,
        panels=(Panel("the toy's answer", {"toy/answer": "answer"}),),
    )
)


def planned(**changes: Any) -> RunConfig:
    base = small(evaluate__distribution=False, report__problems=0, checkpoint__every=2)
    sft = base.plan["sft"]
    plan = {
        "pretrain": base.plan["pretrain"],
        "sft": sft,
        "sft_again": dataclasses.replace(sft, start="sft", answer_only=0.0),
        "toy": ToySettings(start="sft_again", steps=STEPS, optimizer=sft.optimizer),
        "evaluate": base.plan["evaluate"],
    }
    return dataclasses.replace(base, **{"plan": plan, "stages": tuple(plan), **changes})


@pytest.fixture(scope="module")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = copy_stages(finished, tmp_path_factory.mktemp("plan") / "run", "pretrain")
    runner.run(planned(), workdir)
    return workdir


def done(workdir: Path, stage: str) -> dict[str, Any]:
    return json.loads((workdir / stage / "done.json").read_text())


def test_each_stage_is_there_under_its_name(whole: Path) -> None:
    assert set(done(whole, "evaluate")["figures"]) == {
        "teacher", "base", "sft", "sft_again", "toy",
    }  # fmt: skip
    for name in ("teacher", "base", "sft", "sft_again", "toy"):
        assert (whole / "evaluate" / f"{name}.json").is_file()
    markdown = (whole / "report.md").read_text(encoding="utf-8")
    page = (whole / "report.html").read_text(encoding="utf-8")
    for text in (markdown, page):
        assert "student after toy (start: sft_again)" in text
        assert "student after sft_again (start: sft)" in text
    assert "(report/toy.png)" in markdown and "the toy&#39;s answer" in page.replace("'", "&#39;")


@pytest.mark.parametrize("roles", [("student",), ("teacher",), ()])
def test_a_forecast_needs_no_other_model(
    whole: Path,
    roles: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(KINDS, "toy", dataclasses.replace(TOY, forecast=Job.supervised))
    monkeypatch.setattr(ToySettings, "roles", lambda self: roles)
    run = Run(planned(), whole)
    capsys.readouterr()
    forecasts.show(run, run.stage("toy"))
    assert ("toy: memory forecast" in capsys.readouterr().err) == bool(roles)


def test_two_stages_of_a_kind_differ_in_settings_start_and_randomness(whole: Path) -> None:
    run = Run(planned(), whole)
    first, again = run.stage("sft"), run.stage("sft_again")
    assert run.seed(first) == run.config.seed != run.seed(again)
    assert not np.array_equal(*(np.asarray(run.key(s)._base_array) for s in (first, again)))
    assert (
        done(whole, "sft_again")["inputs"]["start (adapter of sft)"]
        == (done(whole, "sft")["made"]["adapter"])
    )
    assert done(whole, "sft_again")["own"]["answer_only"] == 0.0
    assert done(whole, "sft")["own"]["answer_only"] == 0.7
    assert weights(whole, "sft") != weights(whole, "sft_again")


def test_the_flat_config_holds_a_kind_of_this_file() -> None:
    config = planned()
    flat = json.loads(json.dumps(to_dict(config)))
    assert flat["toy"]["kind"] == "toy" and flat["sft_again"]["kind"] == "sft"
    assert build(flat) == config


def test_complete_stages_are_skipped(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> dict[str, Any]:
        raise AssertionError("it was complete")

    for kind in ("pretrain", "sft", "toy"):
        runs.run_instead(monkeypatch, kind, refuse)
    runner.run(planned(), whole)


def test_broken_off_it_goes_on_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    workdir = copy_stages(whole, tmp_path / "run", "pretrain", "sft", "sft_again")
    BREAK_AT.append(2)
    with pytest.raises(KeyboardInterrupt):
        runner.run(planned(stages=("toy",)), workdir)
    assert (workdir / "toy" / "checkpoints" / "2").is_dir()
    assert not (workdir / "toy" / "done.json").exists()
    runner.run(planned(stages=("toy",)), workdir)
    assert weights(workdir, "toy") == weights(whole, "toy")
    assert rows(workdir, "toy") == rows(whole, "toy")
    assert [row["step"] for row in rows(whole, "toy")] == list(range(1, STEPS + 1))
