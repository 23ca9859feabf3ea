"""What an evaluation depends on and keeps: shared settings, dtypes, the plan of its directory."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from configs.evaluate import with_benchmarks
from distill_jax.core.errors import CheckpointError, ConfigError, DataError, DistillError
from distill_jax.evaluation import subjects
from distill_jax.evaluation.held_out import evaluate_stage, held_out, made_from
from distill_jax.evaluation.leading import EVALUATION_RESULTS
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.report import run_data
from distill_jax.run.run import Run
from distill_jax.run.workdir import config_of
from distill_jax.stages import checks, runner
from tests.stages.evaluated import DONE, only, result, stage
from tests.stages.small import ROOT, copy_stages, small

pytestmark = pytest.mark.slow


def test_an_evaluation_keeps_the_plan_and_the_settings_of_the_directory(
    finished: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE, "evaluate", "report")
    config = only(rl__steps=99, evaluate__distribution=False, evaluate__teacher=False)
    runner.run(config, workdir)
    kept = small(evaluate__distribution=False, evaluate__teacher=False)
    assert config_of(workdir) == kept and kept.stages == ("pretrain", "sft", "rl", "evaluate")


def test_another_benchmark_is_a_stage_of_its_own(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE, "evaluate", "report")
    contest = tmp_path / "contest.jsonl"
    # As many problems as stage evaluate has: the same compiled programs.
    asked = [{"problem": f"What is 5 times 5{'?' * n}", "answer": "025"} for n in range(4)]
    # And one of train, which is dropped.
    seen = Run(small(), workdir).data.separate("train")[0]
    asked.append({"problem": seen.question.upper(), "answer": seen.answer})
    contest.write_text("".join(json.dumps(row) + "\n" for row in asked))
    before = (workdir / "evaluate" / "rl.json").read_bytes()
    given = with_benchmarks(small()).replace(
        "evaluate_file", benchmark=str(contest), teacher=False, distribution=False
    )
    # Tokens are shown of the problems that the page leads with: this stage scores none.
    run_data.tokens_file(workdir).unlink()
    runner.run(dataclasses.replace(given, stages=("evaluate_file",)), workdir)
    assert not run_data.tokens_file(workdir).exists()
    found = json.loads((workdir / "evaluate_file" / "rl" / EVALUATION_RESULTS).read_text())
    limit = small().sampling.max_new_tokens
    assert (found["benchmark"], found["num_problems"]) == (str(contest), 4)
    assert found["max_new_tokens"] == limit and 0 <= found["truncation_rate"] <= 1
    assert found["individual_results"][0]["answer"] == "025"
    done = json.loads((workdir / "evaluate_file" / "done.json").read_text())
    # The stage read train to know; of train it has no count.
    assert done["dropped_in_train"] == {str(contest): 1}
    assert done["dropped_prompts"] == {str(contest): 0}
    assert (workdir / "evaluate" / "rl.json").read_bytes() == before
    # The plan has one stage more; the main job is what it was.
    kept = config_of(workdir)
    assert kept.stages == small().stages and [*kept.plan] == [*small().plan, "evaluate_file"]
    report = (workdir / "report.md").read_text(encoding="utf-8")
    # The report leads with the run's own problems, in whatever order they were evaluated.
    own, other = "## Accuracy\n", "## Accuracy on contest.jsonl (evaluate_file)\n"
    assert report.index(own) < report.index(other)
    assert report.count(f"4 held-out problems with at most {limit} new tokens") == 2
    assert report.count("With 4 problems ±") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora__alpha": 3.0}, "sft was made with lora.alpha=8.0, now 3.0"),
        ({"student__compute_dtype": "bfloat16"}, "pretrain was made with student.compute_dtype="),
        ({"data__max_prompt_tokens": 63}, "was made with data.max_prompt_tokens=64, now 63"),
    ],
)
def test_students_of_other_shared_settings_are_refused(
    finished: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE)
    with pytest.raises(ConfigError, match=message):
        checks.prepare(Run(only(**changes), workdir))
    other = {"teacher__compute_dtype": "bfloat16", "sampling__max_new_tokens": 30}
    checks.prepare(Run(only(student__remat=True, **other), workdir))


def test_other_prompts_name_the_way_to_evaluate_with_them(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE)
    way = 'docs/usage.md, "Other prompts for a trained student"'
    usage = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    assert "\n### Other prompts for a trained student\n" in usage
    changes = {"data__chat__instruction": "Use a box."}
    with pytest.raises(ConfigError, match=way):
        checks.prepare(Run(only(**changes), workdir))
    with pytest.raises(ConfigError) as error:  # a start that trains has other ways
        checks.prepare(Run(small(**changes), workdir))
    assert way not in str(error.value)
    for config, named in ((only(**changes), True), (small(**changes, sft__accumulate=3), False)):
        with pytest.raises(DistillError):
            runner.run(config, tmp_path / f"new{named}", adopt_from=workdir)
        said = " ".join(capfd.readouterr().err.split())
        assert "no stage is equal" in said and (way in said) == named
    solve = SolveSettings(model="rl", agents="none.jsonl")
    equal = dataclasses.replace(small(), stages=("solve",), plan=small().plan | {"solve": solve})
    with pytest.raises(DataError, match="no file of agents"):
        runner.run(equal, tmp_path / "equal", adopt_from=workdir)
    said = " ".join(capfd.readouterr().err.split())
    assert f"adopted from {workdir}: pretrain, sft, rl" in said and way not in said


def test_a_result_of_other_dtypes_is_not_this_one(finished: Path) -> None:
    def source(**changes: Any) -> dict[str, Any]:
        run = Run(only(**changes), finished)
        settings = stage(run).settings
        return made_from(run, settings, subjects.teacher(run), held_out(run, settings))

    assert source() == result(finished, "teacher")["made_from"]
    for changes in (
        {"teacher__compute_dtype": "bfloat16"},
        {"teacher__param_dtype": "bfloat16"},
        {"teacher__quantise": "int8"},
    ):
        assert source(**changes) != source()
    assert source(student__compute_dtype="bfloat16") == source()


def test_the_stage_that_has_results_is_the_evaluation(finished: Path) -> None:
    config = small()
    plan = {**config.plan, "later": config.plan["evaluate"]}
    run = Run(dataclasses.replace(config, plan=plan), finished)
    assert evaluate_stage(run).name == "evaluate"


def test_a_checkpoint_is_named_as_everywhere(finished: Path) -> None:
    run = Run(only(evaluate__checkpoints="1"), finished)
    (wanted,) = (s for s in subjects.find(run, stage(run).settings) if s.name == "rl_step_1")
    assert subjects.named(run, "rl_step_1").weights == wanted.weights
    with pytest.raises(CheckpointError, match="no checkpoint of step 7 in"):
        subjects.named(run, "rl_step_7")
