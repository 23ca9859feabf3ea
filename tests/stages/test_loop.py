"""The loop on a model of one number: retention, non-finite updates, resuming, stopping."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_jax.core import sharding
from distill_jax.core.errors import NonFiniteError
from distill_jax.run.run import Run
from distill_jax.run.settings import TrainSettings
from distill_jax.run.stop import Interrupted
from distill_jax.stages import loop
from distill_jax.training import checkpoint_reader
from distill_jax.training import state as states
from distill_jax.training.checkpoint import Checkpointer
from distill_jax.training.records import read_rows
from distill_jax.training.step import make_update
from tests.stages.small import rows, small

PATH = {"layers": {"self_attn": {"q_proj": {"lora_A": np.ones((1, 2, 1), np.float32)}}}}


class Toy:
    """Loss w·x with x = NaN at the steps in `bad`; SGD moves w by −x at each good step."""

    def __init__(self, workdir: Path, bad: tuple[int, ...] = (), **changes: Any):
        each: dict[str, Any] = {"records__every": 1, "checkpoint__every": 1}
        self.context = Run(small(**{**each, **changes}), workdir)
        mesh, tx = self.context.mesh, optax.sgd(1.0)
        self.state, where = states.create({"lora": PATH}, tx, jax.random.key(0), mesh)

        def loss(trainable, frozen, batch, totals, key):
            weight = trainable["lora"]["layers"]["self_attn"]["q_proj"]["lora_A"]
            return jnp.sum(weight) * jnp.mean(batch["x"]), {}

        self.update = make_update(loss, lambda batch: jnp.ones(()), tx, mesh, where)
        self.bad, self.ran, self.at = bad, [], lambda step: None

    def step(self, state, number):
        self.at(number)
        self.ran.append(number)
        x = np.full(8, np.nan if number in self.bad else 1.0, np.float32)
        batch = sharding.place({"x": x}, sharding.batch_sharding(self.context.mesh))
        state, metrics = self.update(state, {}, batch, np.int32(0), np.int32(1))
        return state, {**metrics, "step_tokens": 3}, []

    def run(self, total: int, **how: Any) -> float:
        calls = {name: how.pop(name) for name in ("evaluate", "on_save") if name in how}
        settings = TrainSettings(steps=total, **how)
        workdir = self.context.workdir
        out = loop.train(self.context, "toy", workdir, settings, self.state, self.step, **calls)
        return float(sharding.fetch(out.trainable)["lora"]["layers"]["self_attn"]["q_proj"][
            "lora_A"][0, 0, 0])  # fmt: skip


def kept(workdir: Path) -> list[int]:
    return checkpoint_reader.steps(workdir / "checkpoints")


def test_newest_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path, checkpoint__keep=2, checkpoint__keep_best="eval/accuracy")
    accuracy = iter([0.0, 0.1, 0.9, 0.3, 0.4, 0.5, 0.2])
    toy.run(6, eval_every=1, evaluate=lambda state: {"eval/accuracy": next(accuracy)})
    assert kept(tmp_path) == [2, 5, 6]


def test_a_metric_that_no_checkpoint_has_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Toy(tmp_path, checkpoint__keep_best="eval/acuracy").run(2)
    said = " ".join(capfd.readouterr().err.split())
    assert "toy: no checkpoint was saved with eval/acuracy, so the newest alone are kept" in said


def test_skipped_updates_change_nothing_and_are_counted(tmp_path: Path) -> None:
    assert Toy(tmp_path, bad=(1, 2, 4)).run(6, max_skipped=3) == 1 - 3
    found = rows(tmp_path.parent, tmp_path.name)
    assert [row["skipped"] for row in found] == [0, 1, 1, 0, 1, 0]
    assert [row["loss"] is None for row in found] == [False, True, True, False, True, False]
    assert [row["num_tokens"] for row in found] == [3, 6, 9, 12, 15, 18]


def test_too_many_in_a_row_end_the_run_and_name_a_good_checkpoint(tmp_path: Path) -> None:
    # keep=1: were skipped steps saved as well, the last good state would be pushed out.
    toy = Toy(tmp_path, bad=tuple(range(3, 99)), checkpoint__keep=1)
    with pytest.raises(NonFiniteError) as error:
        toy.run(50, max_skipped=4)
    assert "4 updates in a row" in str(error.value) or "5 updates in a row" in str(error.value)
    where = tmp_path / "checkpoints"
    assert f"the last good checkpoint is step 3 in {where}" in str(error.value)
    assert toy.ran[-1] <= 3 + 4  # the count is read one step late
    with Checkpointer(where) as checkpoints:
        found = checkpoints.restore_latest(Toy(tmp_path).state)
    assert found is not None and found.step == 3
    lora = sharding.fetch(found.state.trainable)["lora"]
    np.testing.assert_array_equal(lora["layers"]["self_attn"]["q_proj"]["lora_A"], 1.0 - 3)
    assert int(found.state.skipped_in_row) == 0


def test_non_finite_from_the_start_has_no_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="no checkpoint was written before them"):
        Toy(tmp_path, bad=tuple(range(9))).run(9, max_skipped=2)


def test_too_many_at_the_very_end_are_seen(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="last good checkpoint is step 4"):
        Toy(tmp_path, bad=(4, 5)).run(6, max_skipped=2)


def test_a_budget_of_tokens_ends_the_run(tmp_path: Path) -> None:
    toy = Toy(tmp_path, checkpoint__every=1)
    assert toy.run(10, max_tokens=7) == 1 - 3  # 3, 6, 9 tokens: the third step reaches 7
    assert kept(tmp_path)[-1] == 3
    assert rows(tmp_path, ".")[-1]["num_tokens"] == 9
    again = Toy(tmp_path)
    assert again.run(10, max_tokens=7) == 1 - 3 and again.ran == []


def test_sigterm_saves_and_the_next_run_goes_on(tmp_path: Path) -> None:
    toy = Toy(tmp_path, checkpoint__every=100)
    toy.at = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None
    with toy.context.stop, pytest.raises(Interrupted) as error:
        toy.run(6)
    assert "toy was asked to stop and is saved at step 3 of 6" in str(error.value)
    assert error.value.exit_code == 0
    again = Toy(tmp_path, checkpoint__every=100)
    assert again.run(6) == 1 - 6 and again.ran == [3, 4, 5]
    assert [row["step"] for row in rows(tmp_path.parent, tmp_path.name)] == [1, 2, 3, 4, 5, 6]


def test_counts_of_steps_are_summed_up_over_a_resume(tmp_path: Path) -> None:
    class Counts(Toy):
        def step(self, state, number):
            state, metrics, completions = super().step(state, number)
            return state, {**metrics, "step_sampled_tokens": number}, completions

    toy = Counts(tmp_path)
    toy.at = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None
    with toy.context.stop, pytest.raises(Interrupted):
        toy.run(5)
    Counts(tmp_path).run(5)
    found = rows(tmp_path, ".")
    assert [row["num_sampled_tokens"] for row in found] == [0, 1, 3, 6, 10]
    assert [row["num_tokens"] for row in found] == [3, 6, 9, 12, 15]
    assert not any(name.startswith("step_s") for row in found for name in row)


def test_a_count_that_began_later_is_not_logged(tmp_path: Path) -> None:
    """A run of an earlier version goes on: its earlier steps were not counted."""
    totals = loop._Totals({"num_tokens": 30, "good_step": 1, "ended": False})
    metrics = {"loss": 1.0, "step_tokens": 3, "step_sampled_tokens": 2}
    totals.add(metrics)
    assert totals.sums == {"num_tokens": 33} and metrics == {"loss": 1.0}


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    toy = Toy(tmp_path)

    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    toy.at = twice
    with toy.context.stop, pytest.raises(KeyboardInterrupt):
        toy.run(3)
    assert toy.ran == []


def test_an_interrupt_is_acknowledged_and_ends_with_its_own_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toy = Toy(tmp_path)
    toy.at = lambda step: os.kill(os.getpid(), signal.SIGINT)
    with toy.context.stop, pytest.raises(Interrupted):
        toy.run(3)
    assert toy.ran == [0] and toy.context.stop.exit_code == 130
    told = capfd.readouterr().err
    assert "stopping after this step, Ctrl-C again stops at once" in told


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Toy(tmp_path).context.stop:
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_step_time_is_a_mean_without_evaluation(tmp_path: Path) -> None:
    import time

    toy = Toy(tmp_path)
    toy.run(2, eval_every=1, evaluate=lambda state: time.sleep(0.2) or {"eval/x": 1.0})
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["step_time"] < 0.2


def test_steps_that_compile_are_marked_and_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, now = Toy(tmp_path, records__every=2), [0.0]
    grown = jax.jit(lambda x: x + 1)

    def at(step: int) -> None:
        fresh = step in (0, 3)  # the first step, and one of another shape
        now[0] += 100.0 if fresh else float(step)
        grown(np.ones(2 + step if fresh else 2, np.float32))

    toy.at = at
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    toy.run(6)
    found = read_rows(tmp_path / "metrics.jsonl")
    # Rows after steps 1, 2, 4 and 6; steps count from 0 in `at`.
    assert [row.get("step_time") for row in found] == [None, 1.0, 2.0, 4.5]
    assert [row.get("perf/compiled_programs", 0) > 0 for row in found] == [True, False, True, False]
    assert all(
        (row.get("perf/compile_time", 0.0) > 0) == (i in (0, 2)) for i, row in enumerate(found)
    )
    assert found[2]["perf/compiled_programs"] == 1
