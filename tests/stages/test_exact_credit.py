"""Stage rl with credit=exact: short runs, going on to the same bits, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.unread import find
from distill_jax.rewards.settings import RewardSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.rl_step import RLStep
from distill_jax.stages.teacher import Teacher
from distill_jax.training.records import FIRST_ROLLOUT_FILE
from launch import report
from tests.stages import test_credit
from tests.stages.small import ROOT, rows, small, weights
from tests.stages.stopping import sigterm

pytestmark = pytest.mark.slow

EXACT: dict[str, Any] = {"rl__rewards__credit": "exact"}
ALONE: dict[str, Any] = {
    **EXACT,
    "rl__samples_per_prompt": 1,
    "rl__prompts_per_step": 64,  # so that some answers end
    "rl__rewards__correctness_weight": 0.0,
    "rl__rewards__intrinsic_weight": 0.5,
}
# Parts of a run that the loss meets: several updates, masked rows, microbatches, prompts of the
# teacher's own, other terms with weights that adapt, normalised apart, a KL to the reference.
EVERYTHING: dict[str, Any] = {
    **EXACT,
    "rl__num_iterations": 2,
    "rl__minibatches": 2,
    "rl__accumulate": 2,
    "rl__mask_truncated": True,
    "rl__teacher__prompt": "{question} again",
    "rl__rewards__aggregation": "gdpo",
    "rl__rewards__format_weight": 0.1,
    "rl__rewards__adaptive": True,
    "rl__group__top_entropy": 0.8,
    "rl__group__beta": 0.01,
    "rl__steps": 3,
}


def settings(**changes: Any) -> RLSettings:
    exact = {"credit": "exact", "student_weight": 1.0, **changes.pop("rewards", {})}
    return RLSettings(**{"algorithm": "bnpo", "rewards": RewardSettings(**exact), **changes})


def test_one_sample_a_prompt_trains_on_the_divergence_alone(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Teacher, "launch")  # no pass of the teacher but the loss's
    found = test_credit.run(begun, tmp_path / "run", **ALONE)
    assert len(found) == 2
    for row in found:
        assert row["grad_norm"] > 0 and row["teacher/kl"] > 0 and 0 < row["teacher/mass"] < 1
        np.testing.assert_allclose(row["loss"], 0.5 * row["teacher/kl"], rtol=1e-5)
        assert row["reward"] == 0 and not any(name.startswith("rewards/intr") for name in row)
    first = json.loads((tmp_path / "run" / "rl" / FIRST_ROLLOUT_FILE).read_text())
    assert 0 < first["teacher/mass_at_end"] < 1  # the guard's figure, of a step that is made later
    assert first["teacher/mass_at_end"] == found[0]["teacher/mass_at_end"]
    table = rows(tmp_path / "run", "rl", "completions.jsonl")
    assert table and all(row["intrinsic"] is None and row["advantage"] == 0 for row in table)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(report, "start_compilation_cache", lambda directory: None)
    report.main(["--workdir", str(tmp_path / "run")])
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "exact KL(student‖teacher) of each token, in the loss" in text
    assert "<figcaption>exact KL to the teacher, nats per token</figcaption>" in text


def test_the_start_is_at_no_distance_from_itself(begun: Path, tmp_path: Path) -> None:
    (first, _) = test_credit.run(
        begun, tmp_path / "run", rl__teacher__source="start", **{**ALONE, "rl__trainable": "full"}
    )
    assert abs(first["teacher/kl"]) < 1e-6 and first["grad_norm"] < 1e-4


def test_stopped_it_goes_on_to_the_same_bits(begun: Path, tmp_path: Path) -> None:
    whole = test_credit.run(begun, tmp_path / "whole", **EVERYTHING)
    assert len(whole) == 3 and all(np.isfinite(row["loss"]) for row in whole)
    # Both KLs are there, each under its name.
    assert all(row["teacher/kl"] > 0 and "kl" in row for row in whole)
    with sigterm(RLStep, 1, "saved at step 2 of 3"):
        test_credit.run(begun, tmp_path / "broken", **EVERYTHING)
    assert test_credit.run(begun, tmp_path / "broken", **EVERYTHING) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ({"student_weight": 0.0}, "student_weight=0.0 with credit=exact; wanted: student_weight=1"),
        ({"alpha": 0.5}, "alpha=0.5"),
        ({"form": "raw"}, "form=raw"),
        ({"discount": 0.5}, "discount=0.5"),
        ({"control": "permuted"}, "control=permuted"),
    ],
)
def test_rewards_that_make_no_divergence_are_refused(rewards: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(rewards=rewards)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": "ppo"}, "credit=exact with algorithm=ppo"),
        ({"teacher__source": "endpoint", "teacher__endpoint__model": "m"}, "source=endpoint"),
        ({"teacher__models": ("b=/b",), "teacher__column": "c"}, "teacher.models"),
        ({"samples_per_prompt": 1}, "samples_per_prompt=1"),  # the verdicts are compared
        (
            {"curriculum__method": "self_evolving", "rewards__correctness_weight": 0.0},
            "no other term",
        ),
    ],
)
def test_stages_that_cannot_have_it_are_refused(changes: dict[str, Any], said: str) -> None:
    known = {"rl__rewards__credit": "exact", "rl__rewards__student_weight": 1.0}
    with pytest.raises(ConfigError, match=said):
        small(**known, **{f"rl__{name}": value for name, value in changes.items()})


def test_what_it_does_not_read_is_named() -> None:
    unread = {
        "sequence": "sum", "normaliser": "mean_std", "clip": 4.0, "momentum": 0.5,
        "token_clip": 5.0, "token_baseline": "none", "adaptive": True,
    }  # fmt: skip
    found = {one.name for one in find(RewardSettings(credit="exact", student_weight=1.0, **unread))}
    assert found == set(unread) - {"momentum"}  # with adaptive it is read
    found = {one.name for one in find(settings(rewards={"momentum": 0.5}))}
    assert found == {"rewards.momentum"}
    # Weights of other terms adapt.
    assert not find(settings(rewards={"adaptive": True, "momentum": 0.5, "format_weight": 0.1}))
