"""Measures of a run's stages, from files that are written down here, and their pooling by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.experiments import pooled, report
from distill_jax.experiments.arms import Arm
from distill_jax.report import markdown
from distill_jax.report.view import RunView, StageView
from tests.experiments.test_report import row

VIEW = RunView(
    (
        StageView("rl", "rl", "rl", "distill", "student"),
        StageView("bonus", "rl", "bonus", "distill", "student"),
        StageView("agents", "solve", "agents", "", "results"),
        StageView("search", "solve", "search", "", "results"),
        StageView("alone", "solve", "alone", "", "results"),
        StageView("bench", "step_bench", "bench", "", "results"),
        StageView("evaluate", "evaluate", "evaluate", "", "results"),
    )
)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    def result(*right: tuple[bool, list[bool]]) -> dict[str, Any]:
        return {"problems": [{"greedy_right": g, "sampled_right": s} for g, s in right]}

    write(tmp_path / "evaluate/rl.json", result((True, [True, False]), (False, [False, False])))
    write(tmp_path / "evaluate/bonus.json", result((True, [True, True]), (True, [False, True])))
    (tmp_path / "evaluate/rl").mkdir()
    write(tmp_path / "evaluate/rl/evaluation_results.json", {})
    share = {"mean": 0.5, "low": 0.4, "high": 0.6}
    less = {"mean": -0.25, "low": -0.5, "high": 0.0, "p_value": 0.05}
    solved = {
        "agents": ["cold", "hot"],
        "selectors": {
            "majority": {**share, "minus_majority": {**less, "mean": 0.0}},
            "best": {**share, "minus_majority": less},
        },
        "pass_at_n": share,
        "plain": {"difference": {"best": {**less, "mean": 0.125}}},
    }
    write(tmp_path / "agents/results.json", solved)
    # One agent whose candidates are searched for: plain samples are something else.
    found = {**solved, "agents": ["default"], "benchmark": "embedded", "search": {"width": 2}}
    write(tmp_path / "search/results.json", found)
    write(tmp_path / "alone/results.json", {**found, "search": None})
    write(tmp_path / "config.json", {"data": {"source": "gsm8k"}})
    figures = {
        "f1": 0.5, "acc_error": 0.4, "acc_correct": 2 / 3, "steps/auc": 0.75,
        "f1_of_constants": {"all_right": 0.0, "first_wrong": 0.125},
    }  # fmt: skip
    write(tmp_path / "bench/done.json", {"figures": figures})
    return tmp_path


def test_measures_of_a_run(workdir: Path) -> None:
    found = {one["name"]: one for one in pooled.measures(workdir, VIEW)}
    # Samples of rl: 1/2 and 0; of bonus: 1 and 1/2. The base was not evaluated: no difference.
    assert found["rl, pass@1"]["mean"] == 0.25 and found["bonus, greedy"]["mean"] == 1.0
    assert found["bonus less rl, pass@1"]["mean"] == 0.5
    assert not any("less distill" in name for name in found)
    assert found["agents: best less majority"]["low"] == -0.5
    assert found["agents: best less one agent's"]["mean"] == 0.125
    assert found["search: best less one agent's"]["mean"] == 0.125
    assert "alone: best less one agent's" not in found
    assert "agents: majority less majority" not in found
    # The test split of gsm8k is that of every seed; generated problems are of their seed alone.
    assert found["rl, pass@1"]["same_problems"] and found["agents: best"]["same_problems"]
    assert not found["search: best"]["same_problems"]
    assert found["bench: F1 of the best constant"]["mean"] == 0.125
    assert found["bench: AUC of steps (a constant: 0.5)"] == {
        "section": "steps", "name": "bench: AUC of steps (a constant: 0.5)", "mean": 0.75,
        "low": None, "high": None, "same_problems": False,
    }  # fmt: skip
    write(workdir / "config.json", {"data": {"source": "embedded"}})
    found = {one["name"]: one for one in pooled.measures(workdir, VIEW)}
    assert not found["rl, pass@1"]["same_problems"]


def test_runs_that_solve_nothing_have_no_measures(workdir: Path) -> None:
    plain = RunView(tuple(s for s in VIEW.stages if s.kind not in ("solve", "step_bench")))
    assert pooled.measures(workdir, plain) == []


def test_pairs_of_students_with_their_start_and_their_sibling() -> None:
    assert pooled.compared(VIEW) == [("rl", "distill"), ("bonus", "distill"), ("bonus", "rl")]


def test_seeds_on_the_same_problems_and_bounds_of_a_share():
    def run(mean: float, low: float, high: float, **more: bool) -> list[dict[str, Any]]:
        one = {"section": "selection", "name": "a", "mean": mean, "low": low, "high": high}
        return [{**one, **more}]

    # Wilson's bounds of 1: nothing above. √(.03² + .04²)/2 = .025, or (.03 + .04)/2 = .035.
    runs = [run(1.0, 0.97, 1.0), run(1.0, 0.96, 1.0)]
    (one,) = pooled.pool(runs, "selection")
    assert one.problems == pytest.approx((1.0, 0.975, 1.0))
    runs = [run(1.0, 0.97, 1.0, same_problems=True), run(1.0, 0.96, 1.0, same_problems=True)]
    (one,) = pooled.pool(runs, "selection")
    assert one.problems == pytest.approx((1.0, 0.965, 1.0))
    # Over seeds .1 ± t·.1 and so on: a share is cut at 0 and 1, a difference at −1 and 1.
    apart = [run(0.0, 0.0, 0.1), run(0.2, 0.1, 0.3)]
    (one,) = pooled.pool(apart, "selection")
    assert one.seeds[1:] == (0.0, 1.0)
    (one,) = pooled.pool([[{**r[0], "name": "a less b"}] for r in apart], "selection")
    assert one.seeds[1:] == (-1.0, 1.0)


def test_pooled_by_hand(tmp_path: Path) -> None:
    def run(mean: float, half: float) -> list[dict[str, Any]]:
        one = {"section": "selection", "low": mean - half, "high": mean + half}
        return [
            {**one, "name": "a", "mean": mean},
            {"section": "steps", "name": "f", "mean": mean, "low": None, "high": None},
        ]

    runs = [run(0.4, 0.03), [*run(0.42, 0.04), {**run(0, 0)[0], "name": "in one run alone"}]]
    (one,) = pooled.pool(runs, "selection")
    # Half over problems: √(.03² + .04²)/2 = .025; over seeds t(1, .975)·.01 = .127062.
    assert one.name == "a" and one.each == [0.4, 0.42]
    assert one.problems == pytest.approx((0.41, 0.385, 0.435))
    assert one.seeds == pytest.approx((0.41, 0.282938, 0.537062), abs=1e-6)
    (other,) = pooled.pool(runs, "steps")
    assert other.problems.low is None and pooled.pool([], "steps") == []
    # In the report: shares in percent, F1 as it is.
    rows = [{**row("all", seed, 0.5), "measures": one} for seed, one in enumerate(runs)]
    path = tmp_path / "experiment_report.md"
    made = report.build([Arm("all", {})], ["all"], rows, [], command="run")
    markdown.write(made, path, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "| a | 41.0 [38.5, 43.5] | 41.0 [28.3, 53.7] | 40.0, 42.0 |" in text
    assert "| f | 0.410 | 0.410 [0.283, 0.537] | 0.400, 0.420 |" in text
    assert "## Students" not in text
