"""Stage prm with head=implicit: trained on outcomes, scored by steps, on its own base alone."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, ConfigError, DataError
from distill_jax.inference import process_scorer
from distill_jax.models import implicit_io, reward_model_io
from distill_jax.models.reward_model_io import PRM_CONFIG
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import checks, prm_outcomes, reference, runner
from distill_jax.stages.prm_implicit import outcome_figures
from distill_jax.stages.prm_outcomes import OutcomeRows
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.step_bench import StepBenchSettings
from distill_jax.training.optimizer import OptimizerSettings
from tests import tiny
from tests.stages.small import copy_stages, rows, small
from tests.stages.test_prm import labelled, write

pytestmark = pytest.mark.slow

STEPS = 4


def config(data: Path | str, **changes: Any) -> RunConfig:
    base = small(checkpoint__every=2, records__every=1)
    settings = {
        "start": "sft", "data": str(data), "head": "implicit", "steps": STEPS, "batch_size": 8,
        "max_length": 64, "validation_share": 0.3, "beta": 0.1, "eval_every": 4,
        "optimizer": OptimizerSettings(learning_rate=0.03), **changes,
    }  # fmt: skip
    plan = {name: base.plan[name] for name in ("pretrain", "sft")}
    plan |= {
        "prm": PRMSettings(**settings),
        "bench": StepBenchSettings(reward_model="prm", data=str(data)),
    }
    return dataclasses.replace(base, plan=plan, stages=("prm", "bench"))


@pytest.fixture(scope="module")
def trained(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    root = tmp_path_factory.mktemp("implicit")
    how = config(write(root / "rows.jsonl", labelled()))
    workdir = copy_stages(begun, root / "run", "pretrain", "sft")
    runner.run(how, workdir)
    return workdir, how


def made(workdir: Path) -> Path:
    return workdir / "prm" / "reward_model"


def test_it_learns_from_outcomes_and_starts_at_its_reference(
    trained: tuple[Path, RunConfig],
) -> None:
    first, *found = rows(trained[0], "prm")
    # No log-ratio before the first update: every logit is 0.
    assert found[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["eval/outcome_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["eval/brier"] == pytest.approx(0.25, abs=1e-4)
    assert found[-1]["eval/outcome_loss"] < 0.95 * np.log(2)
    assert {"accuracy", "balanced_accuracy", "num_tokens"} <= found[-1].keys()
    figures = json.loads((trained[0] / "prm" / "done.json").read_text())["figures"]
    assert figures["eval/outcome_auc"] == found[-1]["eval/outcome_auc"] > 0.6
    bench = json.loads((trained[0] / "bench" / "done.json").read_text())["figures"]
    assert bench["solutions"] == 40 and bench["steps/auc"] != 0.5


def test_scores_are_log_ratios_of_the_two_adapters(trained: tuple[Path, RunConfig]) -> None:
    run = Run(trained[1], trained[0])
    scorer = process_scorer.load(run, "prm")
    about = scorer.about
    assert (about.beta, about.aggregation, about.labels) == (0.1, "min", "outcome")
    assert about.reference == run.student_digests(run.student("sft"))
    tok = run.data.tokenizer
    prompt, answer = tok.encode("Tom has 1"), tok.encode("1+1=2\n2+3=9")
    (got,) = scorer.score([prompt], [[*answer, run.data.eos_id]])
    row = scorer.encode(prompt, answer)
    assert row.start == len(prompt) and len(row.ends) == 2
    # By a loop over the tokens of the row: step 0 is those up to its step token, included.
    sums = []
    for params in (scorer.params, scorer.head):
        padded = np.array([row.tokens + [0] * (64 - len(row.tokens))], np.int32)
        hidden = np.asarray(tiny.hidden(scorer.model, params, padded)[0], float)
        logits = hidden @ np.asarray(scorer.model.head_VD(params), float)[: len(tok)].T
        logp = tiny.log_softmax(logits)
        each = [logp[t - 1, row.tokens[t]] for t in range(row.start, len(row.tokens))]
        cut = row.ends[0] + 1 - row.start
        sums.append([sum(each[:cut]), sum(each[cut:])])
    logit = 0.1 * (np.array(sums[0]) - np.array(sums[1]))
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logit)), atol=1e-5)
    assert np.abs(logit).min() > 1e-3
    # The reference is the start, not the base below it.
    start = run.models.read_adapter(trained[0] / "sft" / "adapter", scorer.model.config)
    kept = implicit_io.load(made(trained[0]), scorer.model.config).reference
    np.testing.assert_array_equal(
        kept["layers"]["self_attn"]["q_proj"]["lora_B"],
        start["layers"]["self_attn"]["q_proj"]["lora_B"],
    )


def test_broken_off_it_resumes_to_the_same_bits(
    trained: tuple[Path, RunConfig], begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, how = trained
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    add, batch = reference.Store.add, OutcomeRows.batch

    def in_the_reference(self: Any, index: Any, logp: Any) -> None:
        if len(self.logp) == 16:
            raise KeyboardInterrupt
        add(self, index, logp)

    def in_training(self: Any, step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return batch(self, step)

    breaks = ((reference.Store, "add", in_the_reference), (OutcomeRows, "batch", in_training))
    for owner, name, broken in breaks:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            with pytest.raises(KeyboardInterrupt):
                runner.run(how, workdir)
    monkeypatch.setattr(reference.Store, "add", lambda *_: pytest.fail("computed again"))
    runner.run(dataclasses.replace(how, stages=("prm",)), workdir)
    for name in ("adapter_model.safetensors", implicit_io.REFERENCE, PRM_CONFIG):
        assert (made(workdir) / name).read_bytes() == (made(whole) / name).read_bytes()
    assert rows(workdir, "prm") == rows(whole, "prm")


def test_another_base_is_refused(trained: tuple[Path, RunConfig], tmp_path: Path) -> None:
    workdir = copy_stages(trained[0], tmp_path / "run", "pretrain", "sft")
    copied = tmp_path / "reward_model"
    shutil.copytree(made(trained[0]), copied)
    named = json.loads((copied / "adapter_config.json").read_text())
    gone = {**named, "base_model_name_or_path": str(tmp_path / "gone")}
    (copied / "adapter_config.json").write_text(json.dumps(gone))
    run = Run(trained[1], workdir)
    assert process_scorer.check(run, str(copied))[1].head == "implicit"  # the run's student fits
    about = json.loads((copied / PRM_CONFIG).read_text())
    other = {**about, "reference": {**about["reference"], "student": "0" * 32}}
    (copied / PRM_CONFIG).write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match=f"trained on another model .*{'0' * 32}"):
        process_scorer.load(run, str(copied))
    with pytest.raises(CheckpointError, match="trained on another model"):  # before any work
        checks.check_reward_model(run, str(copied), set())
    for change in ({"beta": None}, {"head": "linear"}):
        (copied / PRM_CONFIG).write_text(json.dumps({**about, **change}))
        with pytest.raises(CheckpointError):
            reward_model_io.read_about(copied / PRM_CONFIG)


def test_there_is_no_such_head_in_transformers(trained: tuple[Path, RunConfig]) -> None:
    with pytest.raises(CheckpointError, match="transformers has no such head; for an export"):
        reward_model_io.load(made(trained[0]))


def given(begun: Path, path: Path, **changes: Any) -> OutcomeRows:
    how = {"validation_share": 0.0, "eval_every": 0, "start": "base", **changes}
    run = Run(config(path, **how), begun)
    return OutcomeRows(run, run.stage("prm"))


def test_outcomes_of_rows(begun: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    bench = [
        {"problem": f"q {i}", "steps": ["a", "b"], "label": label, "final_answer_correct": right}
        for i, (label, right) in enumerate([(-1, True), (0, False), (1, True), (1, None)])
    ]
    found = given(begun, write(path, bench))
    # The row's own word counts; without one, the last labelled step.
    assert [one.outcome for one in found.train] == [1, 0, 1, 0]
    counts = {"right": 4, "wrong": 4, "undecided": 0}
    last = [
        None,
        {"right": 0, "wrong": 1, "undecided": 0},
        {"right": 0, "wrong": 0, "undecided": 1},
    ]
    mc = [
        {
            "question": f"q {i}", "steps": ["a", "b"], "step_tokens": [[70], [71]],
            "mc": [counts, last[i]], "root": counts, "trace_right": i == 0,
        }
        for i in range(3)
    ]  # fmt: skip
    found = given(begun, write(path, mc))
    assert [one.outcome for one in found.train] == [1, 0]  # the third is undecided
    assert found.figures["rows_without_label"] == 1
    # A solution that does not fit is dropped whole.
    longest = len(found.train[0].row.tokens)
    with pytest.raises(DataError, match="0 rows to train on"):
        given(begun, path, max_length=longest - 1)
    with pytest.raises(DataError, match="all 4 labelled solutions are right"):
        given(begun, write(path, [{**row, "final_answer_correct": True} for row in bench]))
    with pytest.raises(DataError, match="final_answer_correct is 'yes'"):
        given(begun, write(path, [{**row, "final_answer_correct": "yes"} for row in bench]))
    chosen = {"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0}
    prm800k = {"question": {"problem": "q"}, "label": {"steps": [chosen]}}
    with pytest.raises(DataError, match="prm800k with head=implicit; wanted: whole solutions"):
        given(begun, write(path, [prm800k]))


def test_batches_have_few_lengths(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prm_outcomes, "MULTIPLE", 1)
    found = labelled(60)
    for number, row in enumerate(found):
        row["completions"][0] += " so" * (number % 30)
    path = write(tmp_path / "rows.jsonl", found)
    rows = given(begun, path, batch_size=2, steps=40, validation_share=0.0)
    rows.reference = [np.zeros(1)] * len(rows.train)
    shapes = [rows.batch(step)[0]["tokens_BT"].shape for step in range(40)]
    assert 3 < len(set(shapes)) <= 6


def test_rows_of_traces(begun: Path, tmp_path: Path) -> None:
    tok = Run(config(tmp_path), begun).data.tokenizer
    found = []
    for i, text in enumerate(["2+3=5\n#### 5", "6", "7\n8"]):
        tokens = [*tok.encode(text), tok.eos_token_id]
        found.append(
            {"id": "p", "question": "2 + 3?", "answer": "5", "completion": text, "tokens": tokens,
             "ended": True, "right": i == 0, "undecided": i == 2, "sample": i}
        )  # fmt: skip
    rows = given(begun, write(tmp_path / "rows.jsonl", found))
    assert [one.outcome for one in rows.train] == [1, 0] and not rows.labelled
    assert [len(one.row.ends) for one in rows.train] == [2, 1]
    rows.reference = [np.float32([-1, -2]), np.float32([-4])]
    batch, tokens = rows.batch(0)
    assert sorted(set(zip(batch["reference_B"], batch["label_B"], strict=True))) == [
        (-4, 0), (-3, 1),
    ]  # fmt: skip
    row = rows.train[int(batch["label_B"][0] == 0)].row
    assert batch["targets_BR"][0, : len(row.tokens) - row.start].tolist() == row.tokens[row.start :]
    assert batch["loss_mask_BR"][0].sum() == len(row.tokens) - row.start
    assert tokens == 4 * sum(len(one.row.tokens) for one in rows.train)


def test_figures_of_solutions() -> None:
    # Logits 1 right, −1 right, −2 wrong: losses log(1 + e^−1), log(1 + e), log(1 + e^−2).
    found = outcome_figures([1.0, -1.0, -2.0], [True, True, False])
    want = (np.log1p(np.exp(-1)) + np.log1p(np.exp(1)) + np.log1p(np.exp(-2))) / 3
    assert found["outcome_loss"] == pytest.approx(want)
    assert found["outcome_accuracy"] == pytest.approx(2 / 3) and found["outcome_auc"] == 1.0
    assert "outcome_auc" not in outcome_figures([1.0], [True])


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "soft"}, {"threshold": 0.5}, {"trainable": "full"}, {"head_rate": 1.0},
        {"neutral": "ignore"},
    ],
)  # fmt: skip
def test_settings_that_it_does_not_read_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}=.* with head=implicit"):
        PRMSettings(head="implicit", **changes)
    with pytest.raises(ConfigError, match="beta=0.1 with head=linear"):
        PRMSettings(beta=0.1)
