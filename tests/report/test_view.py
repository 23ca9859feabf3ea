"""Names of subjects: from stages, through aliases, in order; the file that keeps a view."""

import json
from pathlib import Path

import pytest

from distill_jax.core.errors import CheckpointError
from distill_jax.report import panels, view
from distill_jax.report.panels import Panel
from distill_jax.report.view import RunView, StageView
from tests.report.views import LONG, RUN


def test_subjects_are_named_by_their_stages() -> None:
    assert list(RUN.subjects) == ["teacher", "base", "sft", "rl", "model"]
    assert list(RunView().subjects) == ["teacher", "base", "model"]
    assert LONG.label("rl_short") == "student after rl_short (start: rl)"
    assert LONG.label("rl_short_step_20") == "student at step 20 of rl_short"
    assert LONG.label("evaluate_step_2") == "evaluate_step_2"  # makes no student


def test_checkpoints_are_known_by_their_stage() -> None:
    assert LONG.checkpoint("rl_short_step_20") == ("rl_short", 20)
    assert LONG.checkpoint("rl_step_7") == ("rl", 7)
    assert LONG.checkpoint("pretrain_step_7") is None and LONG.checkpoint("rl") is None
    names = ["rl", "model", "rl_step_10", "rl_short", "base", "rl_step_9", "distill", "teacher"]
    wanted = ["teacher", "base", "rl_step_9", "rl_step_10", "rl", "distill", "rl_short", "model"]
    assert LONG.order(names) == wanted


@pytest.mark.parametrize(
    ("name", "in_run", "in_long", "in_none"),
    [
        ("student", "rl", "rl_short", "base"),
        ("student_base", "base", "base", "base"),
        ("student_before", "sft", "rl", "student_before"),
        ("student_after", "rl", "rl_short", "student_after"),
        ("student_distilled", "student_distilled", "distill", "student_distilled"),
        ("sft", "sft", "sft", "sft"),
        ("rl_step_3", "rl_step_3", "rl_step_3", "rl_step_3"),
        ("teacher", "teacher", "teacher", "teacher"),
        ("runs/other", "runs/other", "runs/other", "runs/other"),
    ],
)
def test_aliases(name: str, in_run: str, in_long: str, in_none: str) -> None:
    found = [view.canonical(name, each) for each in (RUN, LONG, RunView())]
    assert found == [in_run, in_long, in_none]


def test_a_stage_named_as_an_alias_is_that_stage() -> None:
    named = RunView((StageView("student", "sft", "student", "base", "student"), *RUN.stages))
    assert view.canonical("student", named) == "student" and named.last == "rl"


def test_results_are_those_of_the_last_stage_that_has_some(tmp_path: Path) -> None:
    both = RunView(tuple(StageView(n, "evaluate", n, makes="results") for n in ("first", "again")))
    assert both.results_directory(tmp_path) == tmp_path / "again"
    for name in ("first", "again"):
        (tmp_path / name / "teacher").mkdir(parents=True)
        (tmp_path / name / "teacher" / "evaluation_results.json").write_text("{}")
        assert both.results_directory(tmp_path) == tmp_path / name


def test_a_report_leads_with_the_runs_own_problems(tmp_path: Path) -> None:
    def stage(name: str, benchmark: str = "") -> StageView:
        return StageView(name, "evaluate", name, makes="results", benchmark=benchmark)

    both = RunView((stage("evaluate"), stage("evaluate_file", "mine.jsonl")))
    order = ["evaluate_file", "evaluate"]  # evaluated in this order
    for name in order:
        (tmp_path / name / "rl").mkdir(parents=True)
        (tmp_path / name / "rl" / "evaluation_results.json").write_text("{}")
        assert both.results_directory(tmp_path) == tmp_path / name
    found = both.results_directories(tmp_path)
    assert found == [tmp_path / "evaluate", tmp_path / "evaluate_file"]
    # As after `launch.main --config.stages=evaluate_file`: what ran last stands last.
    view.save(both, tmp_path)
    assert view.load(tmp_path) == both


def test_changes_follow_the_edges_and_end_at_the_base() -> None:
    assert view.changes(RUN) == [("sft", "base"), ("rl", "sft"), ("rl", "base")]
    assert view.changes(LONG) == [
        ("sft", "base"), ("rl", "sft"), ("distill", "base"), ("rl_short", "rl"),
        ("rl_short", "base"),
    ]  # fmt: skip
    assert view.changes(RunView(RUN.stages[:2])) == [("sft", "base")]
    assert view.changes(RunView()) == []


def test_a_chain_leads_from_the_first_stage() -> None:
    assert [stage.name for stage in LONG.chain("rl_short")] == ["sft", "rl", "rl_short"]
    assert [stage.name for stage in LONG.chain("distill")] == ["distill"]
    assert LONG.chain("base") == [] and LONG.chain("evaluate") == []
    found = [LONG.started_from(name) for name in ("rl_short", "rl", "sft", "teacher")]
    assert found == ["rl", "sft", "", ""]
    circle = RunView(
        (StageView("a", "rl", "a", "b", "student"), StageView("b", "rl", "b", "a", "student"))
    )
    assert [stage.name for stage in circle.chain("a")] == ["b", "a"]


def test_results_are_where_the_view_says(tmp_path: Path) -> None:
    assert LONG.result_file(tmp_path, "rl") == tmp_path / "results" / "rl.json"
    assert RunView().result_file(tmp_path, "model") == tmp_path / "evaluate" / "model.json"


def test_a_saved_view_is_read_as_it_was(tmp_path: Path) -> None:
    stage = StageView("toy", "toy", "x", "rl", "student", (Panel("loss", {"loss": "nats"}, True),))
    saved = RunView((*RUN.stages, stage))
    view.save(saved, tmp_path)
    assert view.load(tmp_path) == saved
    path = tmp_path / view.VIEW_FILE
    for content in ({}, {"stages": [{"name": "sft"}]}, {"stages": 3}):
        path.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"view.json is damaged: .*; fix: "):
            view.load(tmp_path)


def test_without_a_file_the_view_is_empty(tmp_path: Path) -> None:
    assert view.load(tmp_path) == RunView()


def test_panels_of_kinds_and_the_default() -> None:
    assert {"loss", "learning_rate"} <= {m for p in panels.DEFAULT for m in p.metrics}
    assert {"reward", "entropy"} <= {m for p in panels.REINFORCEMENT for m in p.metrics}
    assert {"eval/forward_kl"} <= {m for p in panels.DISTILLATION for m in p.metrics}
