"""Runs whose completions have two turns: each stage that draws them, stopped and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.inference import store
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.rl_step import RLStep
from distill_jax.tasks import TASKS, Reply, TextTask
from tests.stages.distilled import WAYS
from tests.stages.small import copy_stages, rows, run_here, small, weights

pytestmark = pytest.mark.slow

LETTERS = 3
HOW: dict[str, Any] = {
    "stages": ("rl",),
    "sampling.rounds": 2,
    "sampling.segment": 4,
    "checkpoint.every": 1,
    "rl.minibatches": 2,
    "rl.rewards.overlong_buffer": 8,
}


class Counts(TextTask):
    """A turn of three letters gets the number of its characters; calls of an even one fail.

    A student that has learnt next to nothing asks in many of its turns.
    """

    takes_turns = True

    def asks(self, text: str) -> bool:
        return sum(letter.isascii() and letter.isalpha() for letter in text) >= LETTERS

    def respond(self, texts: Any) -> list[Reply | None]:
        return [Reply(f"[{len(text)}]\n", failed=len(text) % 2 == 0) for text in texts]

    def is_void(self, text: str) -> bool:
        return len(text) % 4 == 0


@pytest.fixture(autouse=True)
def _counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "text", Counts)


class Killed(Exception):
    pass


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_training_resumes_to_the_same_bits(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    how = {**HOW, "rl.algorithm": algorithm}
    whole, broken = (copy_stages(begun, tmp_path / x, "pretrain", "sft") for x in ("a", "b"))
    run_here(whole, **how)
    call = RLStep.__call__

    def killed(self: RLStep, state: Any, step: int) -> Any:
        if step == 1:
            raise Killed
        return call(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(RLStep, "__call__", killed)
        with pytest.raises(Killed):
            run_here(broken, **how)
    run_here(broken, **how)
    assert weights(broken, "rl") == weights(whole, "rl") != weights(whole, "sft")
    assert rows(broken, "rl") == rows(whole, "rl") and len(rows(whole, "rl")) >= 2
    for row in [row for row in rows(whole, "rl") if "loss" in row]:
        assert 0 < row["tools/call_frequency"] <= 1 and 0 < row["tools/failure_frequency"] < 1
        assert 0 < row["void_turn_ratio"] < 1 and row["tools/prefilled_tokens"] > 0
        assert row["completions/max_length"] <= 24 and np.isfinite(row["grad_norm"])
        assert row["sampling/sampling_logp_difference/max"] < 1e-3
    written = rows(whole, "rl", "completions.jsonl")
    assert any("[" in row["transcript"] for row in written)
    assert all("]\n" not in row["completion"] for row in written)


def test_what_is_evaluated_and_distilled_has_the_same_turns(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    packed: list[dict[str, np.ndarray]] = []

    pack = DistillStep._packed

    def packing(self: DistillStep, examples: Any) -> dict[str, np.ndarray]:
        packed.append(pack(self, examples))
        return packed[-1]

    monkeypatch.setattr(DistillStep, "_packed", packing)
    student = {f"distill.{name}": value for name, value in WAYS["student"].items()}
    changes = {**HOW, **student, "stages": ("distill", "evaluate"), "distill.steps": 2}
    config = small(**changes)
    runner.run(config, workdir)
    steps = [row for row in rows(workdir, "distill") if "completions/mean_length" in row]
    for row, batch in zip(steps, packed[-2:], strict=True):  # held-out solutions come before
        trained_B = batch["loss_mask_BR"].sum(axis=1)
        assert trained_B.mean() == pytest.approx(row["completions/mean_length"])
        assert (trained_B < batch["response_len_B"]).any()  # outputs are not trained on
    for path in (workdir / "evaluate").glob("*.checkpoint.jsonl"):
        _, batches, _ = store.read(path)
        found = [one for batch in batches for one in batch.columns["outputs"]]
        assert len(found) and any(found), path


def test_a_task_that_never_replies_has_one_round(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "text", TextTask)
    with pytest.raises(ConfigError, match="sampling.rounds=2 with task=text"):
        _ = Run(small(**HOW), begun).data.task
    assert Run(small(), begun).data.replies() is None


def test_outputs_take_positions(begun: Path) -> None:
    run = Run(small(**HOW, **{"sampling.output_tokens": 500}), begun)
    with pytest.raises(ConfigError, match="with 1 outputs of sampling.output_tokens=500 take"):
        checks.prepare(run)


def test_a_search_has_one_round() -> None:
    settings = SolveSettings(search="beam", reward_model="prm", attempts=4, width=2)
    with pytest.raises(ConfigError, match=r"solve\.search=beam with sampling\.rounds=2"):
        settings.check_with(small(**HOW), "solve")
