"""What reads a reward model: stage rl with its bonus, stage step_bench."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError, RewardHackingError
from distill_jax.evaluation import process_bench
from distill_jax.inference import process_scorer
from distill_jax.rewards import process
from distill_jax.rewards.process import ProcessSettings
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import runner, step_bench
from distill_jax.stages.injected import InjectedSettings
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.step_bench import SCORES_FILE, StepBenchSettings
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow


def config(bench: dict[str, Any] | None = None, **bonus: Any) -> RunConfig:
    bench = {"threshold_data": "tuned"} if bench is None else bench
    base = small(
        checkpoint__every=1, records__every=1, rl__start="base", rl__eval_every=0, rl__steps=3,
        rl__rewards__intrinsic_weight=0.0,
    )  # fmt: skip
    plan = {
        "pretrain": base.plan["pretrain"],
        "injected": InjectedSettings(problems=32),
        "prm": PRMSettings(
            data="injected", steps=1, batch_size=8, max_length=96, validation_share=0.0
        ),
        "rl": dataclasses.replace(
            base.plan["rl"], process=ProcessSettings(reward_model="prm", **bonus)
        ),
        "errors": InjectedSettings(split="test", problems=12),
        "tuned": InjectedSettings(split="validation", problems=12),
        "bench": StepBenchSettings(reward_model="prm", data="errors", **bench),
    }
    return dataclasses.replace(base, plan=plan, stages=tuple(plan))


READ = ("pretrain", "injected", "prm", "errors", "tuned", "bench")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("process")
    runner.run(config(form="min_form", weight=1.0), workdir)
    return workdir


def test_figures_are_logged_and_the_reward_model_is_recorded(whole: Path) -> None:
    last = rows(whole, "rl")[-1]
    names = ("score_right", "score_wrong", "high_wrong", "correlation", "steps", "bounded")
    assert {f"process/{name}" for name in names} <= last.keys()
    assert last["process/steps"] > 0
    made = json.loads((whole / "rl" / "done.json").read_text())["inputs"]
    assert any("reward_model of prm" in name for name in made), made


def test_stopped_it_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(whole, tmp_path / "stopped", *READ)
    calls = []

    def refuse(settings: ProcessSettings, state: dict[str, Any]) -> None:
        calls.append(float(state["first_steps"]))
        if len(calls) == 2:
            raise RewardHackingError("enough")

    monkeypatch.setattr(process, "refuse_hacking", refuse)
    with pytest.raises(RewardHackingError, match="enough"):
        runner.run(config(form="min_form", weight=1.0), workdir)
    runner.run(config(form="min_form", weight=1.0), workdir)
    assert len(set(calls)) == 1 and len(calls) == 4  # steps 1, 2 (stopped), 2, 3
    assert weights(workdir, "rl") == weights(whole, "rl")
    assert rows(workdir, "rl") == rows(whole, "rl")


def test_another_weight_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"rl\.process\.weight=1\.0, now 0\.5"):
        runner.run(config(form="min_form", weight=0.5), whole)


def test_bench_writes_what_its_scores_say(whole: Path) -> None:
    found = json.loads((whole / "bench" / SCORES_FILE).read_text())
    results, threshold = found["results"], found["threshold"]
    assert len(results) == found["solutions"] == 12 and found["too_long"] == 0
    for row in results:
        below = [i for i, score in enumerate(row["scores"]) if score < threshold]
        assert row["predicted"] == (below[0] if below else -1)
    predicted, labels = ([row[name] for row in results] for name in ("predicted", "label"))
    assert found["f1"] == process_bench.f1(predicted, labels).f1
    assert found["with_error"] == sum(label >= 0 for label in labels) > 0
    assert found["f1_of_constants"]["all_right"] == 0.0
    # chosen on the rows of `tuned`: the default does no better there
    with Run(config(), whole) as run:
        rows_there = step_bench.read(run, "tuned")
        scores = step_bench.score(run, process_scorer.load(run, "prm"), rows_there)
    labels = [step_bench.first_label(row) for row in rows_there]
    at = [
        process_bench.f1([process_bench.first_wrong(s, t) for s in scores], labels).f1
        for t in (threshold, 0.5)
    ]
    assert at[0] >= at[1]


def test_a_threshold_is_not_chosen_on_what_is_reported(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threshold_data=errors, the reported rows"):
        config(bench={"threshold_data": "errors"})
    workdir = copy_stages(whole, tmp_path / "both", *READ[:-1])
    same = whole / "errors" / "rows.jsonl"
    with pytest.raises(DataError, match="12 problems of .* are among those that are reported"):
        runner.run(config(bench={"threshold_data": str(same)}), workdir)


def test_solutions_without_room_count_as_not_found(whole: Path, tmp_path: Path) -> None:
    workdir = copy_stages(whole, tmp_path / "long", *READ[:-1])
    about = workdir / "prm" / "reward_model" / "prm_config.json"
    about.write_text(about.read_text().replace('"max_length": 96', '"max_length": 60'))
    runner.run(dataclasses.replace(config(bench={}), stages=("bench",)), workdir)
    found = json.loads((workdir / "bench" / SCORES_FILE).read_text())
    missing = [row for row in found["results"] if row["scores"] is None]
    assert 0 < len(missing) == found["too_long"] < 12
    assert all(row["predicted"] is None for row in missing)
    assert found["threshold"] == 0.5


def test_another_system_message_is_refused(whole: Path, tmp_path: Path) -> None:
    workdir = copy_stages(whole, tmp_path / "other", "pretrain", "injected", "prm")
    about = workdir / "prm" / "reward_model" / "prm_config.json"
    other = about.read_text().replace('"system_prompt": null', '"system_prompt": "Judge."')
    about.write_text(other)
    rl = dataclasses.replace(config(form="min_form", weight=1.0), stages=("rl",))
    with pytest.raises(ConfigError, match=r"system message 'Judge\.'"):
        runner.run(rl, workdir)
