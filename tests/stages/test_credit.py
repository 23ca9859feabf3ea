"""Stage rl with token credit: two steps of each kind, and stopped it goes on to the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.stages import runner
from distill_jax.stages.rl_step import RLStep
from tests.stages.small import copy_stages, rows, small, weights
from tests.stages.stopping import sigterm

pytestmark = pytest.mark.slow

BASE: dict[str, Any] = {
    "stages": ("rl",),
    "rl__start": "base",
    "rl__algorithm": "bnpo",
    "rl__eval_every": 0,
    "records__every": 1,
    "rl__rewards__credit": "token",
    "rl__rewards__student_weight": 1.0,
}
# Parts of a run that token credit meets: several updates with old log-probabilities, masked rows,
# microbatches, cached and bucketed scores, a control, later rewards, terms normalised apart.
EVERYTHING: dict[str, Any] = {
    "rl__minibatches": 2,
    "rl__accumulate": 2,
    "rl__mask_truncated": True,
    "rl__cache__megabytes": 0.01,
    "rl__cache__rows": 4,
    "rl__buckets__lengths": 2,
    "rl__buckets__rows": 4,
    "rl__rewards__control": "permuted",
    "rl__rewards__discount": 0.9,
    "rl__rewards__aggregation": "gdpo",
    "rl__rewards__format_weight": 0.1,
    "rl__rewards__adaptive": True,
    "rl__group__top_entropy": 0.8,
    "rl__steps": 3,
}


def run(begun: Path, workdir: Path, **changes: Any) -> list[dict[str, Any]]:
    """Metrics of each step."""
    if not workdir.exists():
        copy_stages(begun, workdir, "pretrain")
    runner.run(small(**{**BASE, **changes}), workdir)
    return [row for row in rows(workdir, "rl") if "loss" in row]


def test_one_sample_a_prompt_learns_from_the_teacher_alone(begun: Path, tmp_path: Path) -> None:
    one = {
        "rl__samples_per_prompt": 1, "rl__prompts_per_step": 16,
        "rl__rewards__correctness_weight": 0.0,
    }  # fmt: skip
    found = run(begun, tmp_path / "run", **one)
    assert len(found) == 2
    for row in found:
        assert np.isfinite(row["loss"]) and row["grad_norm"] > 0
        assert 0 < row["teacher/mass"] < 1 and row["rewards/dense/advantage"] > 0
        # The student has the teacher's tokens and two steps of training: −KL is below 0.
        assert row["rewards/dense/mean"] < 0
        np.testing.assert_allclose(row["rewards/dense/mean"], row["rewards/intrinsic/mean"], 0.05)


def test_stopped_it_goes_on_to_the_same_bits(begun: Path, tmp_path: Path) -> None:
    whole = run(begun, tmp_path / "whole", **EVERYTHING)
    assert len(whole) == 3 and all(np.isfinite(row["loss"]) for row in whole)
    with sigterm(RLStep, 1, "saved at step 2 of 3"):
        run(begun, tmp_path / "broken", **EVERYTHING)
    assert run(begun, tmp_path / "broken", **EVERYTHING) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")
    with pytest.raises(ConfigError, match=r"rl\.rewards\.discount=0\.9, now 1\.0"):
        run(begun, tmp_path / "broken", **{**EVERYTHING, "rl__rewards__discount": 1.0})
