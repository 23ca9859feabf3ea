"""Stage solve: what it writes, going on after a stop, prompts without gold."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.report import run_data, run_report
from distill_jax.run.run import Run
from distill_jax.stages import runner, solve
from tests.evaluation.scripted import Scripted
from tests.evaluation.test_solver import is_review
from tests.stages import solving
from tests.stages.reasoned import untimed
from tests.stages.solving import GOLDS, Setup, Stop, results, stopping

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("setup"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    return solving.scripted(monkeypatch)


def test_the_default_agent_draws_what_stage_evaluate_samples(setup: Setup, tmp_path: Path) -> None:
    config = setup.config("evaluate", "solve", evaluate__samples=2, attempts=2, plain=True)
    runner.run(config, tmp_path)
    evaluated = json.loads((tmp_path / "evaluate" / "base.json").read_text())
    found = results(tmp_path)
    assert [row["all_solutions"] for row in found["results"]] == [
        problem["sampled"] for problem in evaluated["problems"]
    ]
    assert len({text for row in found["results"] for text in row["all_solutions"]}) > 4
    # One agent at equal tokens is itself.
    assert found["plain"]["samples"] == 2 and found["plain"]["tokens"] == found["tokens"]["total"]
    assert found["plain"]["difference"]["majority"]["mean"] == 0
    assert found["candidates"] == 2 and found["attempts"] == 2 and found["agents"] == ["default"]
    text = (tmp_path / "report.md").read_text()
    assert "## Candidates and selection (solve)" in text and "| majority | " in text


def test_results_hold_what_others_read_and_more(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.everything(), tmp_path)
    found = results(tmp_path)
    assert found.keys() >= {
        "num_problems", "accuracy", "verification_rate", "answer_rate", "avg_time", "results",
        "verification_precision", "verification_recall", "verification_f1",
    }  # fmt: skip
    assert found["num_problems"] == 4 and found["avg_time"] > 0
    assert list(found["selectors"]) == ["first", "majority", "best", "weighted", "weighted_verdict"]
    assert list(found["curves"]) == ["1", "2", "4", "6"] and found["candidates"] == 6
    # Of k = 1 every selector is pass@1; of all candidates each is the stage's own.
    first, last = found["curves"]["1"], found["curves"]["6"]
    kept = [c["correct"] for row in found["results"] for c in row["candidates"] if c["kept"]]
    for name in ("pass", "best"):
        assert first[name]["mean"] == pytest.approx(np.mean(kept))
    assert last["pass"]["mean"] == found["pass_at_n"]["mean"]
    for name in ("majority", "weighted"):  # best@k averages over candidates of one score
        assert last[name]["mean"] == pytest.approx(found["selectors"][name]["mean"])
    for row in found["results"]:
        assert row.keys() >= {
            "problem", "best_solution", "all_solutions", "num_solutions", "total_time",
            "reference_answer", "correct", "selector", "candidates", "tokens", "pass_at_n",
            "majority_correct",
        }  # fmt: skip
        candidates = row["candidates"]
        assert row["num_solutions"] == len(row["all_solutions"]) == len(candidates) >= 6
        assert sum(one["kept"] for one in candidates) == 6
        chosen = candidates[row["selected"]["weighted_verdict"]]
        assert chosen["kept"] and chosen["text"] == row["best_solution"]
        assert row["correct"] == chosen["correct"] == (chosen["answer"] == row["reference_answer"])
        assert row["tokens"]["total"] == sum(c["tokens"] + c["verdict_tokens"] for c in candidates)
    assert any(row["pass_at_n"] for row in found["results"])
    assert not found["results"][2]["pass_at_n"]  # no candidate says its gold number
    assert found["revision"]["revised"] > 0 and found["plain"]["tokens"] <= found["tokens"]["total"]
    markdown, page = ((tmp_path / f"report.{e}").read_text() for e in ("md", "html"))
    assert "weighted_verdict" in markdown and "pass@N" in markdown
    assert 'class="t t1"' in page and "step 1: 0.900" in page and "votes " in page


def test_no_prompt_holds_the_gold_answer(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.everything(), tmp_path)
    prompts = scripted[0].prompts
    assert sum(is_review(p, "verify") for p in prompts) > 3 < len(prompts)
    assert sum(is_review(p, "revise") for p in prompts) > 3
    assert not any(GOLDS[2] in prompt for prompt in prompts)
    # A gold number that a candidate states may only be in the reviews of that candidate.
    assert not any(gold in p for p in prompts for gold in GOLDS if "solution>" not in p)
    said = {one["text"] for row in results(tmp_path)["results"] for one in row["candidates"]}
    for prompt in prompts:
        if any(gold in prompt for gold in GOLDS):
            quoted = prompt.split("<solution>\n")[1].split("\n</solution>")[0]
            assert "\n".join(line[2:] for line in quoted.split("\n")) in said


def test_kept_revisions_are_of_the_kinds_of_evidence(setup: Setup, tmp_path: Path) -> None:
    run = Run(setup.config(rounds=1), tmp_path)
    stage = run.stage("solve")
    given = solve._prepare(run, stage)

    def made_from(**changes: Any) -> dict[str, Any]:
        return solve._made_from(run, dataclasses.replace(stage.settings, **changes), given)

    assert made_from(evidence=("truncated",)) != made_from() == made_from(batch=8)
    # Answers of versions before there were kinds are still those of a run without revisions.
    assert "evidence" not in made_from(rounds=0)["solve"]


@pytest.mark.parametrize("how", ["everything", "search"])
def test_stopped_anywhere_it_goes_on_to_the_same_results(
    setup: Setup, scripted: list[Scripted], tmp_path: Path, how: str
) -> None:
    made = getattr(setup, how)
    config = made(batch=4)
    runner.run(config, tmp_path / "whole")
    wanted = untimed(results(tmp_path / "whole"))
    stored = (tmp_path / "whole" / "solve" / "answers.jsonl").read_bytes()
    total = len(stored.splitlines()) - 1
    assert total == len(scripted[0].calls) > 12
    for stop in (1, 7, total - 1):
        workdir = tmp_path / str(stop)
        with stopping(stop) as batches:
            with pytest.raises(Stop):
                runner.run(config, workdir)
            assert not (workdir / "solve" / "results.json").exists()
            runner.run(config, workdir)
        assert len(batches) == total  # nothing is drawn twice
        found = results(workdir)
        assert untimed(found) == wanted and found["avg_time"] is None
        assert (workdir / "solve" / "answers.jsonl").read_bytes() == stored
    runner.run(made(batch=64), tmp_path / "other")
    assert untimed(results(tmp_path / "other")) == wanted
    if how == "search":
        check_search(tmp_path / "other")


def check_search(workdir: Path) -> None:
    """Of a finished search: its counts, plain samples at equal tokens, the report."""
    found = results(workdir)
    assert found["search"]["method"] == "beam" and found["curves"] == {}
    for row in found["results"]:
        assert row["tokens"]["total"] == row["search"]["tokens"] > 0
        assert row["num_solutions"] == sum(one["kept"] for one in row["candidates"]) >= 2
    assert found["plain"]["tokens"] <= found["tokens"]["total"]
    names = ["first", "majority", "best", "weighted"]
    for one in (found, found["plain"]):
        assert list(one["selectors"]) == names and list(one["calibration"]) == [
            "majority",
            "weighted",
        ]
    assert {one["tokens"] for one in found["selectors"].values()} == {found["tokens"]["total"]}
    text = (workdir / "report.md").read_text()
    assert "Search beam, width 2, 4 beams" in text and "one agent at equal tokens" in text
    assert "confidence of weighted: ECE" in text and "problems of test (held out)" in text


def test_a_report_without_such_a_stage_has_no_such_section(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.config(attempts=1, plain=False), tmp_path)
    data = run_data.read(tmp_path)
    ids = [section.id for section in run_report.build(data).sections]
    assert "solve-solve" in ids and results(tmp_path)["plain"] is None
    bare = dataclasses.replace(data, solved={})
    assert not any(s.id.startswith("solve") for s in run_report.build(bare).sections)
