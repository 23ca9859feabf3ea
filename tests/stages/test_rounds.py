"""Runs whose completions have two turns: each stage that draws them, stopped and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.inference import store
from distill_jax.run.run import Run
from distill_jax.stages import checks, rl_step, runner
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.rl_step import RLStep
from distill_jax.tasks import TASKS, Judged, Reply, TextTask
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

    def packing(self: DistillStep, *given: Any) -> dict[str, np.ndarray]:
        packed.append(pack(self, *given))
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


def test_what_is_dropped_or_replaced_takes_its_outputs_along(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oversampling and dynamic sampling move texts, roles and verdicts of a completion together."""

    def judge(self: Counts, problems: Any, texts: Any, ended_B: np.ndarray) -> Judged:
        right_B = np.array([len(text) % 3 == 0 for text in texts])
        return Judged(right_B, ~right_B & False, [{"text": text} for text in texts], list(texts))

    monkeypatch.setattr(Counts, "judge", judge)
    where = copy_stages(begun, tmp_path / "a", "pretrain", "sft")
    made, batches = rl_step.training_batch, []

    def seen(prompts: Any, rollout: Any, samples: int, **how: Any) -> Any:
        batches.append((rollout, made(prompts, rollout, samples, **how)))
        return batches[-1][1]

    texts, table = [], RLStep._table

    def shown(self: RLStep, drawn: Any, *rest: Any) -> Any:
        assert drawn.samples == self.G and len(drawn.texts) == len(drawn.rollout.length_B)
        texts.append((drawn.texts, [self.run.data.text(row) for row in drawn.rollout.own]))
        return table(self, drawn, *rest)

    monkeypatch.setattr(rl_step, "training_batch", seen)
    monkeypatch.setattr(RLStep, "_table", shown)
    run_here(where, **{
        **HOW, "rl.samples_per_prompt": 4, "rl.oversample": 2, "rl.dynamic_sampling": 2,
        "rl.rewards.overlong_buffer": 0, "rl.rewards.intrinsic_weight": 0.0,
        "rl.rewards.length_weight": 0.2, "rl.algorithm": "dapo",
    })  # fmt: skip
    assert any(any(rollout.outputs) for rollout, _ in batches)
    for rollout, host in batches:
        width = host.response_mask_BR.shape[1]
        np.testing.assert_array_equal(host.response_mask_BR, rollout.mask_BR[:, :width])
        assert not rollout.role_BR[:, width:].any()
        assert not host.behaviour_logp_BR[host.response_mask_BR == 0].any()
    for kept, own in texts:
        assert kept == own
    found = rows(where, "rl", "completions.jsonl")
    assert found and {row["correctness"] for row in found} == {0.0, 1.0}
    for row in found:
        assert row["correctness"] == float(len(row["completion"]) % 3 == 0)
    kept = [f"oversample/kept_{kind}" for kind in ("right", "wrong")]
    every = kept + [name.replace("kept", "dropped") for name in kept]
    steps = [row for row in rows(where, "rl") if kept[0] in row]
    assert len(steps) == len(batches)
    for row in steps:
        assert 2 * sum(row[name] for name in kept) == sum(row[name] for name in every)
