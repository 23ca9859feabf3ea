"""Stages sft and distill on packed rows: the same training, broken off to the same bits."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import packing
from distill_jax.stages import runner
from tests.stages import forks
from tests.stages.forks import Job, Kill
from tests.stages.small import copy_stages, rows, run_here, small, weights

pytestmark = pytest.mark.slow

STEPS = 9
HOW: dict[str, Any] = {
    "stages": ("sft", "distill"),
    "sft.steps": STEPS,
    "sft.accumulate": 2,
    "sft.packing": 160,
    "sft.sort_window": 4,
    "distill.start": "base",
    "distill.steps": STEPS,
    "distill.packing": 160,
    "distill.eval_every": 0,
    "lora.dropout": 0.1,
    "checkpoint.every": 3,
}
# Of a gradient near 0, Adam would make a step of any size.
SOFT = {"sft__optimizer__eps": 1e-3, "distill__optimizer__eps": 1e-3}


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Of the rows of each batch that is packed."""
    found: list[tuple[int, ...]] = []
    real = packing.pack

    def pack(*arguments: Any, **how: Any) -> Any:
        made = real(*arguments, **how)
        found.append((*made["tokens_BT"].shape, *made["targets_BR"].shape))
        return made

    monkeypatch.setattr(packing, "pack", pack)
    return found


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_it_trains_as_one_example_a_row_does(
    begun: Path, tmp_path: Path, shapes: list[tuple[int, ...]], stage: str
) -> None:
    how: dict[str, Any] = {"stages": (stage,), "distill__start": "base", **SOFT}
    how |= {f"{stage}__steps": 6, f"{stage}__accumulate": 2}
    plain, packed = (copy_stages(begun, tmp_path / x, "pretrain") for x in ("plain", "packed"))
    runner.run(small(**how), plain)
    assert not shapes
    runner.run(small(**how, **{f"{stage}__packing": 160}), packed)
    assert len(shapes) == 6 and len(set(shapes)) <= 3
    # Fewer rows than examples, and microbatches of as many.
    assert {one[0] for one in shapes} <= {2, 4, 6}
    for got, want in zip(rows(packed, stage), rows(plain, stage), strict=True):
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=1e-5, err_msg=name)
    file = f"{stage}/adapter/adapter_model.safetensors"
    ours, theirs = load_file(packed / file), load_file(plain / file)
    for name, leaf in theirs.items():
        np.testing.assert_allclose(ours[name], leaf, rtol=1e-3, atol=1e-5, err_msg=name)


def test_killed_it_goes_on_to_the_same_bits(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = (copy_stages(begun, tmp_path / x, "pretrain") for x in ("broken", "whole"))
    kills = [
        Kill(f"{stage}/metrics.jsonl", random.randint(2, 7), STEPS - 1)
        for stage in ("sft", "distill")
    ]
    forks.run(*([Job(str(broken), HOW, kill=tuple(kill))] for kill in kills))
    assert not (broken / "distill" / "done.json").exists()
    capsys.readouterr()
    run_here(broken, **HOW)
    assert "batches are packed into" in capsys.readouterr().err
    run_here(whole, **HOW)
    for stage in ("sft", "distill"):
        assert rows(broken, stage) == rows(whole, stage), stage
        assert weights(broken, stage) == weights(whole, stage), stage


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_a_row_longer_than_a_packed_one(begun: Path, tmp_path: Path, stage: str) -> None:
    workdir = copy_stages(begun, tmp_path / "run", "pretrain")
    with pytest.raises(DataError, match=r"packing=16 with an example of \d+ tokens"):
        runner.run(small(stages=(stage,), **{f"{stage}__packing": 16}), workdir)
    assert not (workdir / stage / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss__top_k": 4}, "packing=64 with loss.top_k=4"),
        (
            {"curriculum__method": "self_evolving"},
            "packing=64 with curriculum.method=self_evolving",
        ),
    ],
)
def test_what_distill_does_not_pack(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(distill__packing=64, **{f"distill__{name}": x for name, x in changes.items()})
