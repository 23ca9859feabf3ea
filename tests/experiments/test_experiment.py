"""A whole experiment in small: sharing, skipping, a failing arm, the files."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import xla_bridge

from configs import presets, saved
from distill_jax.core.errors import ConfigError
from distill_jax.experiments import compute, results
from distill_jax.report import figures
from distill_jax.rewards import controls
from distill_jax.run.config import build
from distill_jax.run.settings import ExperimentSettings
from distill_jax.stages import runner
from launch import arguments, experiment
from tests.stages import small as runs

pytestmark = pytest.mark.slow

ARMS = (
    "base: stages=('pretrain', 'evaluate'); evaluate.teacher=False",
    "start: stages=('pretrain', 'sft', 'evaluate')",
    "coin: rl.rewards.custom=distill_jax.rewards.controls:coin; rl.rewards.correctness_weight=0",
    "broken: rl.rewards.custom=no.such.module:reward",
)
# One that completes and one that fails; the other runs share this process and its programs.
PROCESSES = ("base", "broken")
# What an evaluation does besides drawing and judging answers is not looked at here.
LEAN: dict[str, Any] = {"evaluate__distribution": False, "report__problems": 0}


@pytest.fixture(scope="module", autouse=True)
def _most_runs_in_this_process() -> Iterator[None]:
    in_a_process = experiment._wait

    def wait(command: Sequence[str], log: io.BufferedIOBase) -> int:
        given = dict(word.removeprefix("--").split("=", 1) for word in command[3:])
        workdir = Path(given["workdir"])
        if workdir.parent.name in PROCESSES:
            return in_a_process(command, log)
        config = build(saved.get_config(given["config"].partition(":")[2]))
        with contextlib.redirect_stderr(io.TextIOWrapper(log, write_through=True)) as text:
            try:
                with arguments.OneLine():
                    runner.run(config, workdir)
            except SystemExit as stop:
                return int(stop.code or 0)
            finally:
                text.detach()  # the file stays open
        return 0

    def png(plots: Sequence[figures.Plot], path: Path, legend: Sequence[str] = ()) -> None:
        """Draws the experiment's own, the first time."""
        if path.name == "comprehensive_comparison.png" and not path.exists():
            draw(plots, path, legend)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    draw = figures.png
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_wait", wait)
        patch.setattr(figures, "png", png)
        patch.setattr(figures, "svg", figures.describe)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    workdir = tmp_path_factory.mktemp("experiment")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        with pytest.raises(experiment.Failed, match="1 of 4 runs are not complete"):
            run_here(workdir, ARMS)
    return workdir, said.getvalue()


def run_here(workdir: Path, arms: tuple[str, ...]) -> None:
    cache = f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    experiment.run(
        runs.small(experiment__arms=arms, experiment__seeds=(0,), **LEAN), workdir, flags=(cache,)
    )


def test_one_failing_arm_does_not_end_the_others(done: tuple[Path, str]) -> None:
    workdir, said = done
    assert "start, seed 0: complete" in said and "coin, seed 0: complete" in said
    assert "broken, seed 0: failed" in said and "No module named" in said
    content = json.loads((workdir / "all_results.json").read_text())
    assert [run["arm"] for run in content["runs"]] == ["base", "start", "coin"]
    assert content["failed"][0]["arm"] == "broken"
    report = (workdir / "experiment_report.md").read_text()
    assert "## Not complete" in report and "| coin | 1 |" in report
    assert (workdir / "comprehensive_comparison.png").stat().st_size > 10_000


def test_the_devices_are_left_to_the_runs(
    done: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts JAX takes an accelerator's memory, or all of a TPU, from its runs."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("JAX was started")

    monkeypatch.setattr(xla_bridge, "get_backend", refuse)
    with pytest.raises(AssertionError, match="JAX was started"):
        jax.process_index()  # what a file of a stage is written by
    monkeypatch.setattr(experiment, "_wait", lambda command, log: 1)
    chosen = ExperimentSettings(arms=ARMS[:3], seeds=(0,))
    config = dataclasses.replace(presets.smoke(), experiment=chosen)
    with pytest.raises(experiment.Failed, match="3 of 3 runs are not complete"):
        experiment.run(config, tmp_path / "new")
    workdir = tmp_path / "written"
    shutil.copytree(done[0], workdir)
    (workdir / "all_results.json").unlink()
    experiment.write(config, workdir, [])
    assert len(json.loads((workdir / "all_results.json").read_text())["runs"]) == 3


def test_rows_tell_what_the_files_do(done: tuple[Path, str]) -> None:
    workdir, _ = done
    base, start, coin = json.loads((workdir / "all_results.json").read_text())["runs"]
    assert base["subject"] == "base" and base["tokens"] == {"all": 0}
    assert start["subject"] == "sft" and coin["subject"] == "rl"
    metrics = runs.rows(workdir / "coin" / "seed_0", "rl")
    sft = runs.rows(workdir / "coin" / "seed_0", "sft")[-1]["num_tokens"]
    assert coin["tokens"] == {
        "sft": sft, "rl": metrics[-1]["num_tokens"], "all": sft + metrics[-1]["num_tokens"]
    }  # fmt: skip
    assert [p["accuracy"] for p in coin["curve"]] == [
        row["eval/accuracy"] for row in metrics if "eval/accuracy" in row
    ]
    assert metrics[-1]["rewards/custom/mean"] > 0
    # What sft has spent is in the first point of rl's curve.
    assert base["flops"] == {
        "parts": dict.fromkeys((*compute.PARTS, "all"), 0.0), "estimated": False, "missing": ""
    }  # fmt: skip
    spent, before = coin["flops"]["parts"], start["flops"]["parts"]
    assert not coin["flops"]["estimated"] and spent["sampling"] > 0 and before["sampling"] == 0
    flops = [point["flops"] for point in coin["curve"]]
    assert flops[0] == before["all"] and flops[-1] == spent["all"] and flops == sorted(flops)


def test_history_and_pairs_of_a_run(done: tuple[Path, str]) -> None:
    directory = done[0] / "coin" / "seed_0"
    history = json.loads((directory / "history.json").read_text())
    metrics = runs.rows(directory, "rl")
    assert history["losses"] == [[r["step"], r["loss"]] for r in metrics if "loss" in r]
    pairs = [json.loads(x) for x in (directory / "response_pairs.jsonl").read_text().splitlines()]
    student = json.loads((directory / "evaluate" / "rl.json").read_text())["problems"]
    teacher = json.loads((directory / "evaluate" / "teacher.json").read_text())["problems"]
    assert [p["student"] for p in pairs] == [row["greedy"] for row in student]
    assert [p["teacher"] for p in pairs] == [row["greedy"] for row in teacher]
    assert pairs[0]["subject"] is None or isinstance(pairs[0]["subject"], str)


def test_agreement_counts_no_problem_that_both_get_wrong() -> None:
    def result(*right: bool) -> dict:
        return {
            "problems": [
                {"id": str(i), "greedy": "x", "greedy_right": r} for i, r in enumerate(right)
            ]
        }

    teacher = result(True, True, True, False, False)
    assert results.agreement(teacher, result(True, False, True, True, False)) == 2 / 3
    assert results.agreement(None, teacher) is None
    assert results.agreement(result(False), result(False)) is None


def test_curriculum_data_by_arm() -> None:
    rows = [
        {"step": 1, "curriculum/q/level_1": 0.5, "curriculum/p/level_1/algebra": 0.25},
        {"step": 2, "curriculum/q/level_1": None, "curriculum/count/level_1": 8},
    ]
    assert results.curriculum(rows) == {
        "q_values": {"level_1": [[1, 0.5]]},
        "shares": {"level_1/algebra": [[1, 0.25]]},
        "selections": {"level_1": [[2, 8]]},
    }


def test_arms_begin_with_what_they_share(done: tuple[Path, str]) -> None:
    workdir, _ = done
    paths = [
        workdir / name / "seed_0" / "sft" / "adapter" / "adapter_model.safetensors"
        for name in ("shared", "start", "coin")
    ]
    assert len({os.stat(path).st_ino for path in paths}) == 1


def test_what_is_complete_is_skipped(
    done: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, _ = done
    log = workdir / "coin" / "seed_0" / "log.txt"
    before = log.read_bytes()
    run_here(workdir, ARMS[:3])
    assert log.read_bytes() == before
    assert "[3/3] coin, seed 0: complete (0:00)" in capsys.readouterr().err
    content = json.loads((workdir / "all_results.json").read_text())
    assert content["failed"] == [] and len(content["runs"]) == 3


def test_an_arm_of_other_settings_is_refused_each_time(
    done: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The results of an arm's old settings must not pass for those of its new ones."""
    workdir, _ = done
    changed = (ARMS[1], ARMS[2].replace("correctness_weight=0", "correctness_weight=0.5"))
    for _ in range(2):
        with pytest.raises(experiment.Failed, match="1 of 2 runs are not complete"):
            run_here(workdir, changed)
        said = capsys.readouterr().err
        assert "coin, seed 0: failed" in said and "correctness_weight=0.0, now 0.5" in said
        assert "complete in" not in said.split("coin, seed 0: failed")[1]  # no lines of before
        content = json.loads((workdir / "all_results.json").read_text())
        assert [run["arm"] for run in content["runs"]] == ["start"]
    run_here(workdir, ARMS[1:3])
    assert "coin, seed 0: complete" in capsys.readouterr().err


def test_wrong_arms_end_before_any_run(tmp_path: Path) -> None:
    for wrong, name in (("bad: rl.steps=-1", "rl.steps"), ("bad: stages=('sft',)", "evaluate")):
        with pytest.raises(ConfigError, match=name):
            run_here(tmp_path, ("fine: rl.steps=3", wrong))
        assert list(tmp_path.iterdir()) == []


def test_the_coin_is_fair_and_the_same_again() -> None:
    prompts, texts = ["p"] * 2000, [str(i // 4) for i in range(2000)]
    found = controls.coin(prompts, texts, texts)
    assert found == controls.coin(prompts, texts, texts)
    assert set(found) == {0.0, 1.0} and abs(sum(found) / 2000 - 0.5) < 0.05
    groups = [found[i : i + 4] for i in range(0, 2000, 4)]
    assert any(len(set(group)) == 2 for group in groups)  # equal texts, other rewards
