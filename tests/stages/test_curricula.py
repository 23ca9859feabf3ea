"""Curricula in stage rl: every method runs, stops and goes on; dynamic sampling; levels of MATH."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.curriculum.methods import CURRICULA
from distill_jax.run.run import Run
from distill_jax.stages import checks, rl, runner
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.rl_step import RLStep
from tests.stages.small import copy_stages, rows, small, weights
from tests.stages.stopping import sigterm

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "sft", "rl")


def run(finished: Path, workdir: Path, **changes: Any) -> list[dict[str, Any]]:
    if not workdir.exists():
        copy_stages(finished, workdir, "pretrain", "sft")
    how = {"stages": STAGES, "rl__steps": 3, "rl__eval_every": 0, **changes}
    runner.run(small(**how), workdir)
    return rows(workdir, "rl")


def models(finished: Path) -> dict[str, str]:
    """Settings of the models made there, as data from files ask for."""
    made = finished / "pretrain"
    return {f"{role}__path": str(made / role / "model") for role in ("teacher", "student")}


def counts(row: dict[str, Any]) -> list[int]:
    return [row[f"curriculum/count/level_{level}"] for level in (1, 2)]


@pytest.mark.parametrize("method", CURRICULA)
def test_every_method_runs(finished: Path, tmp_path: Path, method: str) -> None:
    signal = "correctness" if method == "competence" else "advantage"
    how = {"rl__curriculum__method": method, "rl__arm_signal": signal}
    found = run(finished, tmp_path / "run", **how)
    assert [sum(counts(row)) for row in found] == [4, 8, 12]
    shares = [[row[f"curriculum/p/level_{level}"] for level in (1, 2)] for row in found]
    np.testing.assert_allclose(np.sum(shares, axis=1), 1)
    assert all(row[f"curriculum/q/level_{level}"] >= 0 for row in found for level in (1, 2))
    # Two levels in three steps: the first has steps 0 and 1.
    if method == "easy_to_hard":
        assert [counts(row) for row in found] == [[4, 0], [8, 0], [8, 4]]
    if method == "hard_to_easy":
        assert [counts(row) for row in found] == [[0, 4], [0, 8], [4, 8]]
    if method == "uniform":
        np.testing.assert_allclose(shares, 0.5)
    if method == "self_evolving":
        # With an intrinsic reward even groups that are all wrong differ.
        assert max(found[-1]["curriculum/q/level_1"], found[-1]["curriculum/q/level_2"]) > 0.1
    if CURRICULA[method].place:
        # None repeats in a step; the figure of the next ones shows that verdicts are kept.
        seen = [row["curriculum/seen"] for row in found]
        assert seen[0] == found[0]["epoch"] and seen[0] < seen[1] <= seen[2]
    if method == "competence":
        # By correctness alone a group that is all wrong teaches nothing.
        differ = [1 - row["frac_groups_all_wrong"] - row["frac_groups_all_right"] for row in found]
        values = [row[f"curriculum/q/level_{level}"] for row in found for level in (1, 2)]
        assert (max(values) > 0) == (max(differ) > 0)


def test_stopped_and_run_again(finished: Path, tmp_path: Path) -> None:
    how = {
        "rl__steps": 4,
        "rl__curriculum__method": "self_evolving",
        "rl__curriculum__arms": "level_subject",
        "rl__curriculum__temperature": 0.05,
        "rl__curriculum__retention_weight": 0.5,
        "rl__curriculum__transfer_weight": 0.5,
        "rl__dynamic_sampling": 1,
    }
    whole = run(finished, tmp_path / "whole", **how)
    with sigterm(RLStep, 1, "saved at step 2 of 4"):
        run(finished, tmp_path / "broken", **how)
    assert run(finished, tmp_path / "broken", **how) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")
    assert "curriculum/count/level_2/arithmetic" in whole[0]


def test_verdicts_stopped_and_run_again(finished: Path, tmp_path: Path) -> None:
    """The counts of each problem are in the checkpoint; groups of every round are counted."""
    how = {
        "rl__steps": 4,
        "rl__curriculum__method": "posterior",
        "rl__curriculum__memory": 0.25,
        "rl__dynamic_sampling": 1,
    }
    whole = run(finished, tmp_path / "whole", **how)
    with sigterm(RLStep, 1, "saved at step 2 of 4"):
        run(finished, tmp_path / "broken", **how)
    assert run(finished, tmp_path / "broken", **how) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")
    # Four problems are epoch/steps of all; two rounds drew eight, and none twice.
    drawn = sum(counts(whole[0]))
    assert drawn == 8 and whole[0]["curriculum/seen"] == drawn / 4 * whole[0]["epoch"]


def test_distill_stopped_and_run_again(finished: Path, tmp_path: Path) -> None:
    """The gap to the teacher steers what is drawn, and its fall is knowledge transfer."""
    how = {
        "stages": ("distill",),
        "distill__steps": 6,
        "distill__batch_size": 8,
        "distill__eval_every": 0,
        "distill__curriculum__method": "self_evolving",
        "distill__curriculum__temperature": 0.01,
        "distill__curriculum__progress_weight": 1.0,
    }

    def distil(name: str) -> list[dict[str, Any]]:
        if not (tmp_path / name).exists():
            copy_stages(finished, tmp_path / name, "pretrain", "sft")
        runner.run(small(**how), tmp_path / name)
        return [row for row in rows(tmp_path / name, "distill") if "loss" in row]

    whole = distil("whole")
    assert [sum(counts(row)) for row in whole] == [8 * n for n in range(1, 7)]
    first, last = whole[0], whole[-1]
    for level in (1, 2):
        gap, mastery = (
            first[f"curriculum/q/level_{level}"] * 2,
            first[f"curriculum/mastery/level_{level}"],
        )
        # α = .5 from 0, and no progress at the first sight: twice the value is the gap.
        np.testing.assert_allclose(gap + mastery, 1, rtol=1e-5)
        assert 0 < gap < 1
    assert last["curriculum/p/level_1"] != 0.5
    with sigterm(DistillStep, 2, "saved at step 3 of 6"):
        distil("broken")
    assert distil("broken") == whole
    assert weights(tmp_path / "broken", "distill") == weights(tmp_path / "whole", "distill")


def test_what_the_settings_ask_for_is_checked_before_any_work(
    finished: Path, tmp_path: Path
) -> None:
    rows = [
        {"question": f"How many is {n} + 1?", "solution": f"#### {n + 1}", "level": "Level ?"}
        for n in range(60)
    ]
    data = tmp_path / "data"
    data.mkdir()
    for split, part in (("train", rows[:40]), ("validation", rows[40:50]), ("test", rows[50:])):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    paths = models(finished)

    def check(**changes: Any) -> Run:
        how = {"stages": ("rl",), "rl__start": "base", "data__source": str(data)}
        config = small(**how, **paths, **changes)
        context = Run(config, tmp_path)
        checks.prepare(context)
        return context

    with pytest.raises(DataError, match="none of 40 problems has a level"):
        check(rl__curriculum__method="self_evolving")
    with pytest.raises(DataError, match="40 of 40 problems have no level"):
        check(rl__curriculum__unlevelled="error")
    said: list[str] = []
    context = Run(small(data__source=str(data), **paths), tmp_path)
    context.say = said.append  # type: ignore[method-assign]
    rl.KIND.prepare(context, context.stage("rl"))
    assert said == [
        "rl: 40 of 40 problems have no level: drawn as one group, no_level in the metrics"
    ]


def test_math_of_the_hub_keeps_train_and_test_apart(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By content hash: a question that test repeats, in other case and spacing, leaves train."""

    def load_dataset(repository: str, config: str, split: str) -> list[dict[str, str]]:
        start = 0 if split == "train" else 100
        numbers = list(range(start, start + 40)) + ([3] if split == "test" else [])
        space = " " if split == "train" else "  "
        return [
            {
                "problem": f"What{space}is {n} in {config}?",
                "level": "Level ?" if n == 5 else f"Level {1 + n % 5}",
                "type": config.title(),
                "solution": f"\\boxed{{{n}}}",
            }
            for n in numbers
        ]

    fake = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    how = {"data__source": "math", "data__max_prompt_tokens": 512, **models(finished)}
    context = Run(small(rl__curriculum__arms="level_subject", **how), tmp_path)
    said: list[str] = []
    context.data.say = said.append  # type: ignore[method-assign]
    train, test = (context.data.problems(split).problems for split in ("train", "test"))
    assert not {p.content_hash for p in train} & {p.content_hash for p in test}
    assert not any(p.question.startswith("What is 3 in") for p in train)
    assert sum("is 3 in" in " ".join(p.question.split()) for p in test) == 7
    assert "train: 7 problems dropped, they are also in a held-out split" in said
    arms = rl.KIND.prepare(context, context.stage("rl")).arms
    assert len(arms.names) == 5 * 7 + 1 and "level_1/number_theory" in arms.names
    assert arms.unlevelled == sum(p.level is None for p in train) > 0
