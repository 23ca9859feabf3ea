"""Stage rl with each policy loss, estimator and kind of trained weights: a run, killed and not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.profile import NIGHTLY
from tests.stages import forks
from tests.stages.forks import Job, Kill
from tests.stages.small import copy_stages, rows, run_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 4
BASE: dict[str, Any] = {
    "stages": ("rl",),
    "rl.start": "base",
    "rl.steps": STEPS,
    "rl.minibatches": 2,  # ratios other than 1
    "rl.eval_every": 0,
    "rl.optimizer.learning_rate": 1e-2,
    "checkpoint.every": 1,
    "records.every": 1,
}
ALL: dict[str, dict[str, Any]] = {
    "sapo": {
        "rl.algorithm": "sapo",
        "rl.group.clip.temperature_neg": 2.0,
        "rl.group.beta": 0.1,
        "rl.group.kl": "unbiased",
        "rl.group.importance": "sequence_mask",
        "rl.group.importance_floor": 0.5,
        "rl.group.off_policy_mask_threshold": 1e-4,
    },
    "dppo_tv": {
        "rl.algorithm": "dppo_tv",
        "rl.group.clip.clip_high": 1e-5,
        "rl.group.importance": "mask",
        "rl.group.importance_floor": 0.5,
    },
    "gmpo": {
        "rl.algorithm": "gmpo",
        "rl.group.importance": "sequence_truncate",
    },
    "vapo": {
        "rl.algorithm": "ppo",
        "rl.ppo.lam_alpha": 0.05,
        "rl.ppo.critic_lam": 1.0,
        "rl.ppo.value_warmup_steps": 2,
        "rl.ppo.value_warmup_explained": 1.0,
        "rl.ppo.head_rate": 5.0,
    },
    "all weights": {
        "rl.algorithm": "bnpo",
        "rl.trainable": "full",
        "rl.group.clip.delta": 1.5,
        "rl.group.beta": 0.1,
    },
}
# Each is two runs and a part of one.
WAYS = ALL if NIGHTLY else {"vapo": ALL["vapo"]}


@pytest.fixture(scope="module")
def pairs(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Of each way, a run that was killed in its third step, and one that was not."""
    root = tmp_path_factory.mktemp("objectives")
    pairs, jobs = {}, []
    kill = Kill("rl/metrics.jsonl", 3, 3, "rl/checkpoints/2/commit_success.txt")
    for name, changes in WAYS.items():
        cut, whole = (copy_stages(begun, root / x / name, "pretrain") for x in ("cut", "whole"))
        run_here(whole, **{**BASE, **changes})
        pairs[name] = cut, whole
        jobs.append(Job(str(cut), {**BASE, **changes}, kill=tuple(kill)))
    forks.run(jobs)
    return pairs


def made(workdir: Path) -> bytes:
    (found,) = (workdir / "rl").glob("*/*model.safetensors")
    return found.read_bytes()


@pytest.mark.parametrize("name", WAYS)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(
    pairs: dict[str, tuple[Path, Path]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, whole = pairs[name]
    assert not (cut / "rl" / "done.json").exists()
    run_here(cut, **{**BASE, **WAYS[name]})
    assert "rl: resuming after step" in capsys.readouterr().err
    assert rows(cut, "rl") == rows(whole, "rl") and made(cut) == made(whole)


@pytest.mark.parametrize("name", WAYS)
def test_the_policy_is_trained(pairs: dict[str, tuple[Path, Path]], name: str) -> None:
    seen = rows(pairs[name][1], "rl")
    assert len(seen) == STEPS
    assert all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in seen)
    assert not any(row["skipped"] for row in seen)
    if name == "vapo":
        assert [row["critic/warmup"] for row in seen] == [1, 1, 0, 0]
        # The policy stays as it is in these steps, and so does its distance to the reference.
        moved = [abs(row["objective/kl"]) > 1e-9 for row in seen]
        assert moved == [False, False, False, True]
    if name == "sapo":
        assert any(row["sampling/off_policy_masked_mean"] for row in seen)
        assert seen[-1]["kl"] > 0
    if name == "dppo_tv":
        assert any(row["clip_ratio/high_mean"] for row in seen)
