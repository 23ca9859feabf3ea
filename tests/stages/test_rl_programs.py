"""Stage rl whose programs a thread compiles for other lengths: same bits, nothing compiled later.

As on accelerators; on CPU nothing is compiled ahead.
"""

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core import sharding
from distill_jax.data.chat import Prompts
from distill_jax.rollout.completions import Rollout
from distill_jax.run.run import Run
from distill_jax.stages import batch_shapes, rl_programs, rl_step
from distill_jax.stages.rl_step import RLStep
from distill_jax.training.ahead import Ahead
from distill_jax.training.compilations import Compilations
from tests.stages import test_credit, test_replay
from tests.stages.small import small, weights

pytestmark = pytest.mark.slow

# Responses of each step are cut to so many tokens: no two steps need the same lengths.
CUT = (24, 8, 15, 1)
HOW: dict[str, Any] = {
    "rl__steps": len(CUT),
    "rl__batch_multiple": 10,  # arrays of responses have 24 columns at most
    "rl__drawn_lengths": 6,
    "rl__rewards__credit": "sequence",
    "rl__rewards__student_weight": 0.0,
}
BEFORE, OF_REFERENCE = "scores before the update", "scores of the reference"
# How a stage trains, and which programs it compiles ahead.
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "shared prompts": (
        {"rl__minibatches": 2, "rl__group__beta": 0.01, "rl__group__top_entropy": 0.8},
        {"teacher", BEFORE, OF_REFERENCE, "rewards", "minibatches", "update"},
    ),
    "replay": (
        {**test_replay.REPLAY, "rl__group__top_entropy": 1.0},
        {BEFORE, OF_REFERENCE, "rewards", "replay", "minibatches", "update"},
    ),
    "values, packed calls": (
        {
            "rl__algorithm": "ppo", "rl__ppo__kl_coef": 0.0,
            "rl__buckets__lengths": 6, "rl__buckets__packed": True,
        },
        {"teacher", BEFORE, "rewards", "update"},
    ),
    "exact": (
        {"rl__rewards__credit": "exact", "rl__rewards__student_weight": 1.0},
        {"rewards", "update"},
    ),
    "exact, own prompts": (
        {
            "rl__rewards__credit": "exact", "rl__rewards__student_weight": 1.0,
            "rl__teacher__prompt": "{question} again", "rl__minibatches": 2,
        },
        {BEFORE, "rewards"},
    ),
    "teacher's own prompts": (
        {"rl__teacher__prompt": "{question} again"},
        {"rewards", "update"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    real, step = rl_step.training_batch, RLStep.__call__
    most = [0]

    def cut(prompts: Any, rollout: Rollout, *rest: Any, **how: Any) -> Any:
        length_B = np.minimum(rollout.length_B, most[0])
        short = Rollout(rollout.tokens_BR, length_B, rollout.ended_B, rollout.behaviour_logp_BR)
        return real(prompts, short, *rest, **how)

    def call(self: RLStep, state: Any, number: int) -> Any:
        most[0] = CUT[number]
        return step(self, state, number)

    monkeypatch.setattr(rl_step, "training_batch", cut)
    monkeypatch.setattr(RLStep, "__call__", call)


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """For each program compiled ahead, of each call but the first: its T, and what it compiled."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)

    class Watched(Ahead):
        def __call__(self, *args: Any, **named: Any) -> Any:
            first, before = not self._begun, set(threading.enumerate())
            with Compilations() as compiled:
                out = super().__call__(*args, **named)
            if first:
                for thread in set(threading.enumerate()) - before:
                    thread.join()
                found[self.name] = []
            else:
                job = self._job_of((args[self.fixed :], named))
                found[self.name].append((job.sizes["T"], compiled.take()[0]))
            return out

    monkeypatch.setattr(batch_shapes, "Ahead", Watched)
    monkeypatch.setattr(batch_shapes, "compiles_ahead", lambda run: True)
    return found


@pytest.mark.parametrize("case", CASES)
def test_later_steps_compile_nothing_and_have_the_same_bits(
    begun: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    changes, names = CASES[case]
    how = {**HOW, **changes, "rl__steps": len(CUT)}
    plain = test_credit.run(begun, tmp_path / "plain", **how)
    assert "compiled ahead" not in capsys.readouterr().err
    calls = watched(monkeypatch)
    found = test_credit.run(begun, tmp_path / "ahead", **how)
    said = capsys.readouterr().err.replace("\n", " ")
    assert set(calls) == names
    for name, later in calls.items():
        assert len({T for T, _ in later}) > 1, name  # also in other lengths
        assert [compiled for _, compiled in later] == [0] * len(later), name
        assert f"compiled ahead: {name} of T=" in said
    assert found == plain
    assert weights(tmp_path / "ahead", "rl") == weights(tmp_path / "plain", "rl")


def test_without_lengths_each_batch_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_shapes, "compiles_ahead", lambda run: True)
    run, settings = Run(small(), tmp_path), small(rl__batch_multiple=8).plan["rl"]
    assert rl_programs.lengths(run, settings) == ()
    program = print
    assert batch_shapes.compiled_ahead(run, program, ()) is program


@pytest.mark.parametrize(
    ("how", "devices", "shared"),
    [
        ({}, 1, True),
        ({"rl__minibatches": 8}, 1, False),  # half a group each
        ({}, 8, False),
        ({"rl__replay__groups": 4, "rl__rewards__intrinsic_weight": 0.0}, 1, False),
    ],
)
def test_prompts_have_room_by_themselves_where_they_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], devices: int, shared: bool
) -> None:
    config = small(rl__batch_multiple=10, rl__drawn_lengths=6, **how)
    run = Run(config, tmp_path)
    monkeypatch.setattr(sharding, "batch_shards", lambda mesh: devices)
    monkeypatch.setattr(run.data, "problems", lambda split: Prompts([], [[7] * 41], 0))
    # Multiples of 10 for prompts of 41 tokens and responses of 1 to 24. Shared prompts take 50,
    # responses 10, 20 or 30. Whole rows have 42–51 tokens, 52–61 or 62–65.
    together = [(60, 10), (70, 20), (80, 30)]
    whole = [(50, 10), (60, 10), (60, 20), (70, 20), (70, 30)]
    found = rl_programs.lengths(run, config.plan["rl"])
    assert list(found) == (together if shared else whole)
