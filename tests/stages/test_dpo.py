"""Stage dpo: what it learns on, its reference, and that it resumes to the same bits."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.inference.generate import Answers
from distill_jax.run.config import RunConfig
from distill_jax.run.models import Loaded
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import StageSettings
from distill_jax.stages import dpo, dpo_guard, dpo_reference, dpo_rows, runner
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.reference import REFERENCE_FILE, Store
from distill_jax.training.optimizer import OptimizerSettings
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow

STEPS = 4


def given(count: int = 12) -> list[dict[str, Any]]:
    """Right over wrong, of lengths that differ."""
    return [
        {
            "prompt": f"Tom has {i} pens and gets {i % 3}. How many now?",
            "chosen": f"{i}+{i % 3}={i + i % 3}\n#### {i + i % 3}",
            "rejected": f"{i}-{i % 3}={i - i % 3}" + "\nso it is" * (i % 2) + f"\n#### {i - 9}",
            "source": "by hand",
        }
        for i in range(count)
    ]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def config(path: Path, **changes: Any) -> RunConfig:
    base = small(checkpoint__every=2, records__every=1)
    settings = {"steps": STEPS, "batch_size": 4, "max_length": 96, "data": str(path), **changes}
    rate = OptimizerSettings(learning_rate=1e-2)
    plan = {name: base.plan[name] for name in ("pretrain", "sft")}
    plan |= {"dpo": DPOSettings(**{"optimizer": rate, **settings})}
    return dataclasses.replace(base, plan=plan, stages=("dpo",))


@pytest.fixture(scope="module")
def trained(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    root = tmp_path_factory.mktemp("dpo")
    how = config(write(root / "pairs.jsonl", given()), accumulate=2, sft_weight=0.1)
    workdir = copy_stages(begun, root / "run", "pretrain", "sft")
    runner.run(how, workdir)
    return workdir, how


def done(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "dpo" / "done.json").read_text())


def reference(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "dpo" / REFERENCE_FILE
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_have_the_names_users_know(trained: tuple[Path, RunConfig]) -> None:
    found = rows(trained[0], "dpo")
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    names = {
        "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
        "logps/chosen", "logps/rejected", "num_tokens", "grad_norm", "learning_rate", "epoch",
        "margins/optimised", "accuracies/optimised", "logps/chosen_per_token",
        "mean_token_accuracy", "logps/chosen_drift",
    }  # fmt: skip
    assert all(names < set(row) for row in found)
    # The adapter that it starts from is the reference: no log-ratio before the first update.
    first = found[0]
    nll = -first["logps/chosen_per_token"]
    assert first["loss"] - 0.1 * nll == pytest.approx(np.log(2), abs=1e-5)
    for name in ("rewards/chosen", "rewards/rejected", "margins/optimised"):
        assert abs(first[name]) < 1e-4 and found[-1][name] != first[name]
    assert found[-1]["rewards/margins"] > 1e-3  # it learns
    figures = done(trained[0])["figures"]
    assert figures["pairs"] == figures["rows"] == 12 and figures["steps"] == STEPS
    info = json.loads((trained[0] / "dpo" / "adapter" / "model_info.json").read_text())
    assert info["config_summary"]["loss"] == "sigmoid"


def test_batches_and_reference_have_few_lengths(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dpo_rows, dpo_reference):
        monkeypatch.setattr(module, "MULTIPLE", 1)
    found = given(40)
    for number, row in enumerate(found):  # no two of equal length
        row["chosen"] = "so " * number + row["chosen"]
    how = {"steps": 30, "batch_size": 2, "max_length": 256}
    run = Run(config(write(tmp_path / "pairs.jsonl", found), **how), begun)
    stage = run.stage("dpo")
    pairs = PairRows(run, stage)
    shapes = [
        (made["tokens_BCT"].shape, made["targets_BCR"].shape)
        for made in (pairs.batch(step, 2) for step in range(30))
    ]
    assert len(set(shapes)) == len(pairs.chosen) == 6
    scored: list[Any] = []

    def score(model: Any, params: Any, batch: Any, *, vocab: int) -> Any:
        scored.append((batch["tokens_BCT"].shape, batch["targets_BCR"].shape))
        return jnp.zeros((2, 2))

    monkeypatch.setattr(dpo_reference, "_score", score)
    (tmp_path / "dpo").mkdir()
    student = Loaded(None, None)  # type: ignore[arg-type]
    dpo_reference.log_probs(run, stage, tmp_path / "dpo", student, pairs)
    assert len(scored) == 20 and len(set(scored)) == 6


def test_another_start_is_another_reference(
    trained: tuple[Path, RunConfig], begun: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(begun, tmp_path / "run", "pretrain")
    runner.run(trained[1].replace("dpo", start="base", steps=2), workdir)
    assert abs(rows(workdir, "dpo")[0]["rewards/chosen"]) < 1e-4
    ours, other = reference(trained[0])[1:], reference(workdir)[1:]
    assert [row["rows"] for row in ours] == [row["rows"] for row in other]
    assert all(a["logp"] != b["logp"] for a, b in zip(ours, other, strict=True))


def test_broken_off_and_resumed_gives_the_same_bits(
    trained: tuple[Path, RunConfig], begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, how = trained
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    kept = workdir / "dpo" / REFERENCE_FILE
    add, batch = Store.add, PairRows.batch

    def in_the_reference(self: Any, pairs: Any, logp_NC: Any) -> None:
        if len(self.logp) == 4:
            with self.path.open("a") as handle:
                handle.write('{"pairs":[3,')  # as a kill leaves it
            raise KeyboardInterrupt
        add(self, pairs, logp_NC)

    def in_training(self: Any, step: int, size: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return batch(self, step, size)

    for owner, name, breaks in (
        (Store, "add", in_the_reference), (PairRows, "batch", in_training),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, breaks)
            with pytest.raises(KeyboardInterrupt):
                runner.run(how, workdir)
        if owner is Store:
            before = kept.read_bytes()
    monkeypatch.setattr(Store, "add", lambda *_: pytest.fail("computed again"))
    runner.run(how, workdir)
    assert weights(workdir, "dpo") == weights(whole, "dpo")
    assert rows(workdir, "dpo") == rows(whole, "dpo")
    assert kept.read_bytes() == (whole / "dpo" / kept.name).read_bytes()
    assert kept.read_bytes().startswith(before.rpartition(b"\n")[0])


def test_a_reference_of_something_else_is_refused(
    trained: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    path = tmp_path / "reference.jsonl"
    header = reference(trained[0])[0]["made_from"]
    assert set(header) == {"student", "adapter", "pairs", "dtypes"}
    Store(path, header)
    for part in header:
        with pytest.raises(DataError, match=f"made from another {part}; wanted.*fix: delete"):
            Store(path, {**header, part: "0"})
    with path.open("a") as handle:
        handle.write("{}\n")
    with pytest.raises(DataError, match="line 2"):
        Store(path, header)


# --- drift and guard --------------------------------------------------------------------------


def test_drift_is_the_loss_per_token_over_the_reference(trained: tuple[Path, RunConfig]) -> None:
    found, (workdir, how) = rows(trained[0], "dpo"), trained
    pairs = PairRows(Run(how, workdir), Run(how, workdir).stage("dpo"))
    pairs.reference = np.zeros((len(pairs.pairs), 2), np.float32)
    for row in reference(workdir)[1:]:
        pairs.reference[row["rows"]] = row["logp"]
    assert abs(found[0]["logps/chosen_drift"]) < 1e-4 < found[-1]["logps/chosen_drift"]
    for step, row in enumerate(found):
        batch = pairs.batch(step, 4)
        mean = batch["reference_BC"][:, 0].sum() / batch["response_len_BC"][:, 0].sum()
        assert row["logps/chosen_drift"] == pytest.approx(
            row["logps/chosen_per_token"] - mean, abs=1e-5
        )
    assert done(workdir)["figures"]["chosen_drift"] == found[-1]["logps/chosen_drift"]
    assert done(workdir)["figures"]["ended_by_drift"] is False
    assert "regressed" not in done(workdir)["figures"]


def test_training_ends_at_too_much_drift_and_a_resumed_one_too(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hinge loss of a high rate makes both sides less likely."""
    path = write(tmp_path / "pairs.jsonl", given())
    rate = OptimizerSettings(learning_rate=0.3)
    how = config(path, loss="hinge", beta=0.5, optimizer=rate, steps=12, most_drift=0.05)
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    save = dpo.export_files.save_student
    with monkeypatch.context() as patch:  # broken off after its last step
        patch.setattr(dpo.export_files, "save_student", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.run(how, workdir)
    before = rows(workdir, "dpo")
    assert 2 <= len(before) < 12 and before[-1]["logps/chosen_drift"] < -0.05
    assert all(row["logps/chosen_drift"] >= -0.05 for row in before[:-1])
    assert dpo.export_files.save_student is save
    runner.run(how, workdir)
    assert rows(workdir, "dpo") == before
    figures = done(workdir)["figures"]
    assert figures["ended_by_drift"] and figures["steps"] == len(before)


class Answered:
    """In place of validation answers: the start's right ones, then the trained student's."""

    def __init__(self, *rights: list[int]):
        self.rights, self.weights = list(rights), []

    def __call__(self, run: Any, sampler: Any, weights: Any, settings: Any) -> Any:
        self.weights.append(weights)
        right_B = np.array(self.rights.pop(0), bool)
        length_B = np.arange(len(right_B), dtype=np.int32) + 10 * len(self.rights)
        tokens = [[1] * n for n in length_B]
        return Answers(tokens, length_B, np.ones(len(right_B), bool), {}), right_B


@pytest.mark.parametrize(
    ("after", "margin", "regressed"),
    [
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 1], 0.0, False),
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 10.0, False),  # exactly the margin
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 9.9, True),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 10.0, True),
    ],
)
def test_a_worse_student_gives_way_to_its_start(
    trained: tuple[Path, RunConfig],
    begun: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: list[int],
    margin: float,
    regressed: bool,
) -> None:
    path = write(tmp_path / "pairs.jsonl", given())
    how = config(path, accumulate=2, sft_weight=0.1, guard_margin=margin)
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    answered = Answered([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], after)
    monkeypatch.setattr(dpo_guard.held_out, "validation_answers", answered)
    runner.run(how, workdir)
    figures = done(workdir)["figures"]
    assert figures["regressed"] is regressed
    start, ended = weights(workdir, "sft"), weights(trained[0], "dpo")
    assert weights(workdir, "dpo") == (start if regressed else ended) and start != ended
    found = figures["guard"]
    assert found["problems"] == 10 and found["margin"] == margin
    assert found["accuracy"]["before"]["mean"] == 0.3
    assert found["difference"]["mean"] == pytest.approx(sum(after) / 10 - 0.3)
    both = [i for i in range(3) if after[i]]
    assert found["right_in_both"] == len(both)
    if both:
        assert found["tokens"] == {"before": 10 + np.mean(both), "after": np.mean(both)}
    # The next stage starts from what the stage left.
    assert Run(how, workdir).student("dpo").adapter == workdir / "dpo" / "adapter"


def test_the_guard_asks_the_start_and_the_trained_student(begun: Path, tmp_path: Path) -> None:
    """On real answers: these models solve nothing."""
    path = write(tmp_path / "pairs.jsonl", given())
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    runner.run(config(path, guard_margin=0.0, eval_problems=3, steps=1), workdir)
    found = done(workdir)["figures"]
    assert found["regressed"] is False and found["guard"]["problems"] == 3
    assert found["guard"]["tokens"] == {"before": None, "after": None}


class ToyPairSettings(StageSettings, kind="toy_pairs", makes="rows"):
    """Pairs that this file makes."""


def make_pairs(run: Run, stage: Stage[Any], directory: Path, prepared: None) -> dict[str, Any]:
    write(directory / ROWS_FILE, given())
    return {}


register(Kind(ToyPairSettings, make_pairs))


def test_simpo_has_no_reference(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the pairs may come from a stage that runs just before."""
    how = config(tmp_path, loss="simpo", beta=2.0, target_margin=0.5, steps=1)
    settings = dataclasses.replace(how.plan["dpo"], data="toy_pairs")
    plan = {**how.plan, "toy_pairs": ToyPairSettings(), "dpo": settings}
    how = dataclasses.replace(how, plan=plan, stages=("toy_pairs", "dpo"))
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    monkeypatch.setattr(dpo_reference, "log_probs", lambda *_: pytest.fail("a reference pass"))
    runner.run(how, workdir)
    (row,) = rows(workdir, "dpo")
    assert "rewards/margins" not in row and row["margins/optimised"] != 0
    assert not (workdir / "dpo" / REFERENCE_FILE).exists()
    assert "data (rows.jsonl of toy_pairs)" in done(workdir)["inputs"]


# --- rows -------------------------------------------------------------------------------------


def test_what_the_guard_answers_with_is_recorded():
    """Its answers decide which student the stage makes, whatever the pairs' longest rows are."""

    def limits(**settings):
        found = DPOSettings(**settings).shared()
        assert len(set(found)) == len(found)
        return {name for name in found if name.startswith("sampling.")}

    answers = {f"sampling.{name}" for name in ("max_new_tokens", "rounds", "output_tokens")}
    assert limits() == {"sampling.max_new_tokens"} and limits(max_length=64) == set()
    assert limits(guard_margin=0.0) == limits(max_length=64, guard_margin=0.0) == answers
