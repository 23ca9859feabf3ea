"""Stages on given rows compile few programs, and the same ones when they are resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.data import batching
from distill_jax.data.chat import Example
from distill_jax.run.run import Run
from distill_jax.stages import batch_shapes, distill_step, rl_step, runner, supervised
from tests.data.gsm8k_like import lengths
from tests.stages.distilled import WAYS
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow


class GSM8KLike:
    """Rows of lengths as GSM8K has them."""

    def __init__(self, count: int):
        self.examples: Sequence[Example] = [
            Example([1] * (total - response), [1] * response) for total, response in lengths(count)
        ]

    def indices(self, step: int, size: int) -> np.ndarray:
        return batching.batch_indices(0, step, size, len(self.examples))


def test_the_update_is_compiled_for_at_most_six_lengths(tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    traced = set()

    @jax.jit
    def update(state: Any, frozen: Any, batch: Any, number: Any, advance: Any) -> Any:
        traced.add((batch["tokens_BT"].shape, batch["targets_BR"].shape))
        return state + batch["loss_mask_BR"].sum(), {}

    given, steps = GSM8KLike(7473), 700
    step = supervised.examples_step(run, given, update, {}, 32, steps=steps)
    state, tokens = np.float32(0), 0
    for number in range(steps):
        state, metrics, _ = step(state, number)
        tokens += metrics["step_tokens"]
    assert len(traced) == 6
    every = [index for number in range(steps) for index in given.indices(number, 32)]
    assert tokens == sum(len(p) + len(r) for p, r in (given.examples[i] for i in every))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        all_lengths(patch)
        runner.run(small(**HOW), workdir)
    return workdir


# Enough steps for more lengths than are chosen.
HOW: dict[str, Any] = {
    "sft__steps": 12, "distill__steps": 12, "distill__start": "base", "distill__eval_every": 0,
    "checkpoint__every": 4, "stages": ("pretrain", "sft", "distill"),
}  # fmt: skip


def all_lengths(patch: pytest.MonkeyPatch) -> None:
    """No two batches need the same lengths."""
    for module in (supervised, distill_step):
        patch.setattr(module, "MULTIPLE", 1)


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_broken_off_it_is_padded_to_the_same_lengths(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    all_lengths(monkeypatch)
    workdir = copy_stages(whole, tmp_path / "run", "pretrain")
    shapes: list[tuple[int, ...]] = []
    real = batching.pack_examples

    def packed(*arguments: Any, **how: Any) -> Any:
        made = real(*arguments, **how)
        shapes.append((*made["tokens_BT"].shape, *made["targets_BR"].shape))
        if len(shapes) == 6:  # after the checkpoint of step 4
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(batching, "pack_examples", packed)
    alone = small(**{**HOW, "stages": (stage,)})
    with pytest.raises(KeyboardInterrupt):
        runner.run(alone, workdir)
    runner.run(alone, workdir)
    assert len(shapes) == 6 + 8 and len(set(shapes)) == 6
    assert rows(workdir, stage) == rows(whole, stage)
    assert weights(workdir, stage) == weights(whole, stage)


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_programs_compiled_ahead_change_nothing(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    """As on accelerators; on CPU nothing is compiled ahead."""
    all_lengths(monkeypatch)
    monkeypatch.setattr(batch_shapes, "compiles_ahead", lambda run: True)
    workdir = copy_stages(whole, tmp_path / "run", "pretrain")
    capsys.readouterr()
    runner.run(small(**{**HOW, "stages": (stage,)}), workdir)
    assert capsys.readouterr().err.count("compiled ahead: update of T=") >= 1
    assert rows(workdir, stage) == rows(whole, stage)
    assert weights(workdir, stage) == weights(whole, stage)


DRAWN: dict[str, dict[str, Any]] = {
    "rl": {"rl__batch_multiple": 8, "rl__eval_every": 0, "rl__optimizer__eps": 1e-3},
    "distill": {
        **{f"distill__{name}": value for name, value in WAYS["student"].items()},
        "distill__optimizer__eps": 1e-3,
        "distill__eval_every": 0,
    },
}


@pytest.mark.parametrize("stage", DRAWN)
def test_drawn_responses_in_one_length_train_as_in_their_own(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    shapes: list[tuple[int, ...]] = []
    module, name = {"rl": (rl_step, "training_batch"), "distill": (batching, "pack_examples")}[
        stage
    ]
    real = getattr(module, name)

    def made(*arguments: Any, **how: Any) -> Any:
        batch = real(*arguments, **how)
        tokens_BT = batch["tokens_BT"] if isinstance(batch, dict) else batch.tokens_BT
        shapes.append(tokens_BT.shape)
        return batch

    monkeypatch.setattr(module, name, made)
    found = []
    for limit in (0, 1):
        workdir = copy_stages(begun, tmp_path / str(limit), "pretrain", "sft")
        how = {f"{stage}__steps": 3, f"{stage}__drawn_lengths": limit}
        runner.run(small(stages=(stage,), **DRAWN[stage], **how), workdir)
        found.append(rows(workdir, stage))
    alone, one = shapes[:3], shapes[3:]
    assert len(set(one)) == 1 and one[0][1] >= max(T for _, T in alone)
    for got, want in zip(*found, strict=True):
        assert got.keys() == want.keys()
        for figure in want:
            np.testing.assert_allclose(got[figure], want[figure], rtol=1e-3, atol=1e-5)
