"""Stage prm: what it learns on, what it leaves, and that it resumes to the same bits."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, ConfigError, DataError, TokenizerMismatchError
from distill_jax.data.problem import half_of
from distill_jax.inference import process_scorer
from distill_jax.models.reward_model_io import PRM_CONFIG, PRMConfig
from distill_jax.run.config import RunConfig
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import StageSettings
from distill_jax.stages import prm_rows, runner
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.training import optimizer
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.process_losses import HEAD
from tests.stages.small import copy_stages, rows, small

pytestmark = pytest.mark.slow

STEPS = 4


def labelled(count: int = 40) -> list[dict[str, Any]]:
    """Two sums each; the second is wrong in every other solution, and says so by its last digit."""
    out = []
    for i in range(count):
        a, wrong = i % 7, bool(i % 2)
        steps = [f"{i}+{a}={i + a}", f"2+3={9 if wrong else 5}"]
        out.append({"prompt": f"Tom {i} has {a}?", "completions": steps, "labels": [1, not wrong]})
    return out


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


class ToyRowSettings(StageSettings, kind="toy_rows", makes="rows"):
    """Rows that this file makes."""


def make_rows(run: Run, stage: Stage[Any], directory: Path, prepared: None) -> dict[str, Any]:
    write(directory / ROWS_FILE, labelled())
    return {}


register(Kind(ToyRowSettings, make_rows))

WAYS: dict[str, dict[str, Any]] = {
    # Large steps: the exported weights must show that the adapter is merged.
    "lora": {
        "accumulate": 2, "eval_every": 2, "head_rate": 1.0,
        "optimizer": OptimizerSettings(learning_rate=0.1),
    },
    "full": {
        "head": "mlp", "trainable": "full", "aggregation": "product", "balanced": True,
        "steps": 40, "head_rate": 1.0, "eval_problems": 1000,
        "optimizer": OptimizerSettings(learning_rate=1e-2),
    },
}  # fmt: skip


def way(name: str, data: str = "toy_rows", **changes: Any) -> RunConfig:
    saved = 2 if name == "lora" else 100  # what is resumed is saved, the long training is not
    base = small(lora__dropout=0.1, checkpoint__every=saved, records__every=1)
    settings = {
        "data": data, "steps": STEPS, "batch_size": 8, "max_length": 64, "validation_share": 0.3,
        **WAYS[name], **changes,
    }  # fmt: skip
    plan = {
        "pretrain": base.plan["pretrain"],
        "toy_rows": ToyRowSettings(),
        "prm": PRMSettings(**settings),
    }
    return dataclasses.replace(base, plan=plan, stages=("toy_rows", "prm"))


@pytest.fixture(scope="module")
def trained(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = {}
    for name in WAYS:
        workdir = tmp_path_factory.mktemp(name) / "run"
        copy_begun(begun, workdir)
        runner.run(way(name), workdir)
        out[name] = workdir
    return out


def copy_begun(begun: Path, workdir: Path) -> Path:
    return copy_stages(begun, workdir, "pretrain")


def done(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "prm" / "done.json").read_text())


def exported(workdir: Path) -> bytes:
    return (workdir / "prm" / "reward_model" / "model.safetensors").read_bytes()


def test_metrics_have_the_names_users_know(trained: dict[str, Path]) -> None:
    common = {"loss", "loss_minus_floor", "accuracy", "balanced_accuracy", "num_tokens", "epoch"}
    held_out = {
        "loss", "loss_minus_floor", "accuracy", "balanced_accuracy", "auc", "brier", "ece",
        "recall", "f1", "first_error_accuracy", "share_min_at_last",
    }  # fmt: skip
    first, *found = rows(trained["lora"], "prm")
    assert first["step"] == 0 and "loss" not in first
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    # Every first score is 1/2: log 2, and two accumulated parts are one batch's mean.
    assert found[0]["loss"] == found[0]["loss_minus_floor"] == pytest.approx(np.log(2), abs=1e-6)
    for row in found:
        assert common <= row.keys()
    for row in (first, found[1], found[3]):
        assert {f"eval/{name}" for name in held_out} <= row.keys()
    assert first["eval/brier"] == pytest.approx(0.25) and first["eval/auc"] == 0.5
    figures = done(trained["lora"])["figures"]
    assert figures["train_rows"] + figures["held_out_rows"] == figures["rows"] == 40
    assert figures["rows_cut"] == figures["rows_dropped_too_long"] == 0
    assert figures["eval/loss"] == found[-1]["eval/loss"]


def test_it_learns_to_find_wrong_steps(trained: dict[str, Path]) -> None:
    figures = done(trained["full"])["figures"]
    # A constant has an AUC of 1/2 and an F1 of 0.
    assert figures["eval/auc"] > 0.85 and figures["eval/f1"] > 0.5
    assert rows(trained["full"], "prm")[-1]["loss_minus_floor"] < 0.1


@pytest.mark.parametrize("name", WAYS)
def test_the_reward_model_scores_as_it_was_trained(trained: dict[str, Path], name: str) -> None:
    run = Run(way(name), trained[name])
    given = prm_rows.LabelledRows(run, run.stage("prm"))
    scorer = process_scorer.load(run, "prm")
    about = scorer.about
    assert about.aggregation == {"lora": "min", "full": "product"}[name]
    assert (about.max_length, about.step_token_id, about.labels) == (64, given.step_id, "given")
    assert about.trained_on["validation_share"] == 0.3
    encoded, labels = prm_rows.figures_for(given.held_out)
    scores = process_scorer.probabilities(
        scorer.model, scorer.params, scorer.head, encoded, mesh=run.mesh
    )
    figures = done(trained[name])["figures"]
    p, y = (np.concatenate(x).astype(float) for x in (scores, labels))
    # The last evaluation, with the adapter apart, found the same scores.
    assert figures["eval/brier"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-5)
    assert figures["eval/auc"] != 0.5
    # Text and sampled tokens of the same solution get the same score.
    problem = labelled()[0]
    prompt = encoded_prompt(run, problem["prompt"])
    answer = run.data.tokenizer.encode("\n".join(problem["completions"])) + [run.data.eos_id]
    row = scorer.encode(prompt, answer)
    everything = [one.row for one in (*given.train, *given.held_out)]
    assert row in everything
    assert scorer.score([prompt], [answer])[0].shape == (2,)


def encoded_prompt(run: Run, question: str) -> list[int]:
    row = prm_rows.step_rows.StepRow("", "steps", question, ["x"], [1.0])
    settings = run.stage("prm").settings
    kept, _ = prm_rows._encode(run, [row], 1, settings, lambda *_: True)
    return kept[0][1].row.tokens[: -len(run.data.tokenizer.encode("x")) - 1]


def test_broken_off_it_resumes_to_the_same_bits(
    trained: dict[str, Path], begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, real = copy_begun(begun, tmp_path / "run"), prm_rows.LabelledRows.batch

    def breaks(self: prm_rows.LabelledRows, step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(prm_rows.LabelledRows, "batch", breaks)
        with pytest.raises(KeyboardInterrupt):
            runner.run(way("lora"), workdir)
    assert not (workdir / "prm" / "done.json").exists()
    runner.run(way("lora"), workdir)
    assert exported(workdir) == exported(trained["lora"])
    assert rows(workdir, "prm") == rows(trained["lora"], "prm")
    assert done(workdir)["made"] == done(trained["lora"])["made"]


def test_a_reward_model_that_does_not_fit_is_refused(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    workdir = copy_stages(trained["lora"], tmp_path / "run", "pretrain", "toy_rows", "prm")
    made = workdir / "prm" / "reward_model"
    run = Run(way("lora"), workdir)
    about = json.loads((made / PRM_CONFIG).read_text())
    (made / PRM_CONFIG).write_text(json.dumps({**about, "step_token_id": 3}))
    with pytest.raises(CheckpointError, match="step_token_id=3; wanted: "):
        process_scorer.load(run, "prm")
    text = (made / "tokenizer.json").read_text()
    (made / "tokenizer.json").write_text(text.replace('"A":', '"AAA":', 1))
    (made / PRM_CONFIG).write_text(json.dumps(about))
    with pytest.raises(TokenizerMismatchError, match="to the reward model"):
        process_scorer.load(run, "prm")
    with pytest.raises(DataError, match="no reward model at .*; fix: run stage prm first"):
        process_scorer.load(Run(way("lora"), tmp_path / "empty"), "prm")


def test_the_head_learns_at_its_own_rate() -> None:
    # AdamW's first step is the learning rate times the sign of the gradient, whatever its size.
    tx = optimizer.make_with_head(OptimizerSettings(learning_rate=0.1), 10, HEAD, 5.0)
    tree = {"lora": np.ones(2, np.float32), HEAD: {"weight": np.ones(2, np.float32)}}
    changes, _ = tx.update(tree, tx.init(tree), tree)
    np.testing.assert_allclose(changes["lora"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(changes[HEAD]["weight"], -0.5, rtol=1e-4)


# --- rows -------------------------------------------------------------------------------------


def given(begun: Path, found: list[dict[str, Any]], tmp_path: Path, **changes: Any) -> Any:
    path = write(tmp_path / "rows.jsonl", found)
    run = Run(way("lora", data=str(path), **{"eval_every": 0, **changes}), begun)
    return prm_rows.LabelledRows(run, run.stage("prm"))


def test_cut_rows_are_counted(begun: Path, tmp_path: Path) -> None:
    plain = given(begun, labelled(), tmp_path)
    lengths = sorted(len(one.row.tokens) for one in (*plain.train, *plain.held_out))
    found = labelled()
    found[0]["labels"] = [None, None]  # nothing to learn from
    found[2]["labels"] = [-100, True]  # its label goes with the second step
    found[4]["labels"] = [0, None]
    short = lengths[0] - 1  # room for the first step of each, for the second of none
    cut = given(begun, found, tmp_path, max_length=short, validation_share=0.0)
    counts = {name.removeprefix("rows_"): int(n) for name, n in cut.figures.items() if n}
    assert counts == {
        "rows": 40, "without_label": 1, "cut": 39, "dropped_too_long": 1, "train_rows": 38,
        "share_right": 0,
    }  # fmt: skip
    assert cut.figures["share_right"] == 37 / 38
    assert all(len(one.row.ends) == len(one.labels) == 1 for one in cut.train)


def test_questions_of_the_evaluation_are_dropped(begun: Path, tmp_path: Path) -> None:
    data = Run(way("lora"), begun).data
    asked = [data.separate(split)[0].question.upper() for split in ("validation", "test", "train")]
    more = [{**labelled()[0], "prompt": question} for question in asked]
    found = given(begun, [*labelled(), *more], tmp_path)
    assert found.figures["rows_dropped_held_out"] == 2 and found.figures["rows"] == 41
    with pytest.raises(DataError, match="all 2 rows are of problems of validation or test"):
        given(begun, more[:2], tmp_path)


def test_a_model_of_one_half_learns_on_no_problem_of_the_other(begun: Path, tmp_path: Path) -> None:
    """Where its validation_share holds none out, it may have seen its own half alone."""
    halves = {row["prompt"]: half_of(row["prompt"]) for row in labelled()}
    assert 10 < list(halves.values()).count(1) < 30
    for half in (1, 2):
        rows = given(begun, labelled(), tmp_path, half=half)
        mine = list(halves.values()).count(half)
        assert rows.figures["rows_dropped_other_half"] == 40 - mine
        assert len(rows.train) + len(rows.held_out) == mine
        about = prm_rows.about(Run(way("lora"), begun), Stage("prm", rows.settings), rows)
        assert about.trained_on["half"] == half
        for question in halves:
            seen = halves[question] == half and not rows.is_held_out(question)
            assert prm_rows.may_have_seen(about, question) is seen
    whole = given(begun, labelled(), tmp_path)
    about = prm_rows.about(Run(way("lora"), begun), Stage("prm", whole.settings), whole)
    assert "half" not in about.trained_on
    assert [prm_rows.may_have_seen(about, q) for q in halves] == [
        not whole.is_held_out(q) for q in halves
    ]
    # A released model does not say what it was trained on.
    assert prm_rows.may_have_seen(PRMConfig(), "What is 1+2?") is None
    first = [row for row in labelled() if halves[row["prompt"]] == 1]
    with pytest.raises(DataError, match=r"or of the half that prm.half=2 leaves"):
        given(begun, first, tmp_path, half=2)


def test_halves_are_by_what_a_question_says() -> None:
    halves = [half_of(f"What is {n} + {n + 1}?") for n in range(400)]
    assert 160 < halves.count(1) < 240 and set(halves) == {1, 2}
    assert half_of("What  is 1 + 2?") == half_of("what is 1 + 2?")


def test_a_problem_is_held_out_in_every_file_or_in_none(begun: Path, tmp_path: Path) -> None:
    one = given(begun, labelled(), tmp_path)
    other = given(begun, [*labelled()[::-1], *labelled()], tmp_path)
    assert len(other.held_out) == 2 * len(one.held_out) > 0
    prompts = [{tuple(x.row.tokens[:12]) for x in part} for part in (other.train, other.held_out)]
    assert not prompts[0] & prompts[1]
    assert one.is_held_out("Tom 1  HAS 1?") == one.is_held_out("tom 1 has 1?")


def test_counts_become_labels_and_tokens_stay_as_they_are(begun: Path, tmp_path: Path) -> None:
    def row(i: int, *mc: Any, root: int = 4) -> dict[str, Any]:
        counts = [one and {"right": one[0], "wrong": one[1], "undecided": 0} for one in mc]
        return {
            "id": str(i), "question": f"q {i}", "steps": ["a", "b", "c"],
            "step_tokens": [[70], [71, 10 + i], [72]], "mc": counts,
            "root": {"right": root, "wrong": 8 - root, "undecided": 0}, "trace_right": True,
        }  # fmt: skip

    found = [row(0, (6, 2), (2, 6), (0, 8)), row(1, (1, 7), None, (8, 0))]
    found.append(row(2, (0, 8), (0, 8), None, root=0))  # hopeless: nothing is labelled

    def labels(**how: Any) -> list[list[float | None]]:
        rows = given(begun, found, tmp_path, validation_share=0.0, **how)
        assert rows.counted and rows.figures["rows_without_label"] == 1
        line = rows.step_id
        assert rows.train[1].row.tokens[-7:] == [70, line, 71, 11, line, 72, line]
        return [one.labels for one in rows.train]

    assert labels() == [[1, 1, 0], [1, None, 1]]
    # Beside rows of another form: the setting is read by those with counts alone.
    also = write(tmp_path / "also.jsonl", labelled(2))
    both = given(begun, found, tmp_path, validation_share=0.0, labels="soft", also=str(also))
    assert both.counted and both.figures["rows"] == 5
    assert [one.labels for one in both.train][2:] == [[1, 1], [1, 0]]
    assert labels(threshold=0.5) == [[1, 0, None], [0, None, None]]
    assert labels(labels="soft") == [[0.75, 0.25, 0], [0.125, None, 1]]
    assert labels(labels="relative") == [[1, 0.5, 0], [0.25, None, 1]]


def test_balanced_weights_give_each_class_half_of_the_loss(begun: Path, tmp_path: Path) -> None:
    rows = given(begun, labelled(), tmp_path, balanced=True, batch_size=28, validation_share=0.0)
    # 40 solutions have 60 right steps and 20 wrong ones: weights 80/(2·60) and 80/(2·20).
    batch, tokens = rows.batch(0)
    there = batch["weight_BS"] > 0
    right = batch["label_BS"] == 1
    np.testing.assert_allclose(batch["weight_BS"][there & right], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(batch["weight_BS"][there & ~right], 2, rtol=1e-6)
    assert there.sum() == 56 and tokens < batch["tokens_BT"].size
    plain, _ = given(begun, labelled(), tmp_path).batch(0)
    assert set(np.unique(plain["weight_BS"])) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("change", "how", "match"),
    [
        ({"labels": [1, 1]}, {}, "all 80 labelled steps are right; wanted: right and wrong ones"),
        ({"labels": [0, 0]}, {}, "all 80 labelled steps are wrong"),
        ({"labels": [None, -100]}, {}, "none of 40 rows has a labelled step; wanted: right and"),
        ({"completions": ["a", " "]}, {}, "line 1: step 1 is ' '"),
        ({"completions": ["a"]}, {}, "line 1: 2 labels for 1 steps"),
        ({"completions": ["a<|im_end|>", "b"]}, {}, "step 0 holds the special token <|im_end|>"),
        ({}, {"max_length": 4}, "0 rows to train on"),
        ({"prompt": "the same"}, {}, "40 rows to train on, 0 held out|0 rows to train on, 40 held"),
        ({}, {"labels": "soft"}, "prm.labels=soft with rows of form steps; wanted: .* counts"),
        ({}, {"neutral": "ignore"}, "prm.neutral=ignore with rows of form steps"),
    ],
)
def test_bad_rows_are_refused(
    begun: Path, tmp_path: Path, change: dict[str, Any], how: dict[str, Any], match: str
) -> None:
    how = how if "held" in match else {"validation_share": 0.0, **how}
    with pytest.raises((DataError, ConfigError), match=match):
        given(begun, [{**row, **change} for row in labelled()], tmp_path, **how)


def test_bad_settings_are_refused(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prm.data is empty"):
        way("lora", data="")
    with pytest.raises(ConfigError, match=r"prm.also=toy_rows, the rows of prm.data"):
        way("lora", also="toy_rows")
    with pytest.raises(ConfigError, match="threshold=0.5 with labels=soft"):
        PRMSettings(labels="soft", threshold=0.5)
    with pytest.raises(ConfigError, match="eval_every=2 with validation_share=0"):
        PRMSettings(eval_every=2, validation_share=0.0)
    path = str(write(tmp_path / "rows.jsonl", labelled()))
    split = dataclasses.replace(PRMSettings().step_format, token="two words")
    with pytest.raises(ConfigError, match="'two words' is . tokens of this tokenizer"):
        runner.run(way("lora", data=path, step_format=split), begun)
    with pytest.raises(DataError, match="no file of rows at .*gone.jsonl"):
        runner.run(way("lora", data=f"{tmp_path}/gone.jsonl"), begun)
    workdir = copy_begun(begun, tmp_path / "run")
    with pytest.raises(ConfigError, match="max_length=4096; wanted: at most the student's 512"):
        runner.run(way("lora", data=path, max_length=4096), workdir)


def test_steps_that_hold_the_separator_are_counted(begun: Path, tmp_path: Path) -> None:
    found = labelled()
    found[0]["completions"][0] = "first\nsecond"
    assert given(begun, found, tmp_path).figures["rows_with_separator_in_step"] == 1
