"""Which changes a work directory accepts, and which it refuses, by what a stage depends on."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.run.config import RunConfig
from distill_jax.run.record import FORMAT, record, refuse_if_changed, refuse_other_inputs
from distill_jax.run.run import Run
from tests.stages.small import small

pytestmark = pytest.mark.mesh

DATA = small().data
MADE = {"pretrain": ("teacher", "student"), "sft": ("adapter",), "rl": ("adapter",)}


def written(
    workdir: Path, config: RunConfig, *, complete: tuple[str, ...], begun: str = ""
) -> None:
    """A directory in which these stages were run with this config, without running them."""
    run = Run(config, workdir)
    for name in (*complete, begun) if begun else complete:
        now = record(run, run.stage(name), contents=False, rounding=True)._asdict()
        folder = run.directory(name)
        (folder / "settings.json").write_text(json.dumps(now))
        if name != begun:
            made = {part: f"{name} {part}" for part in MADE.get(name, ())}
            (folder / "done.json").write_text(json.dumps({**now, "made": made}))


def look(workdir: Path, stage: str, **changes: Any) -> None:
    run = Run(small(**changes), workdir)
    refuse_if_changed(run, run.stage(stage))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("complete")
    written(workdir, small(), complete=("pretrain", "sft", "rl", "evaluate"))
    return workdir


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("begun")
    written(workdir, small(), complete=("pretrain", "sft"), begun="rl")
    return workdir


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("sft", {"teacher__quantise": "int8"}),
        ("sft", {"student__remat": True}),
        ("sft", {"student__unroll": False}),
        ("sft", {"sampling__segment": 4}),
        ("sft", {"sampling__temperature": 0.5}),
        ("sft", {"sft__max_skipped": 3}),
        ("sft", {"rl__steps": 9, "rl__algorithm": "ppo", "rl__optimizer__learning_rate": 1.0}),
        ("sft", {"data__test": "other.jsonl"}),
        ("sft", {"distill__steps": 9}),
        ("pretrain", {"teacher__quantise": "int8"}),
        ("pretrain", {"pretrain__max_skipped": 3}),
        ("pretrain", {"sft__steps": 9}),
        ("rl", {"rl__max_skipped": 3}),
        ("rl", {"rl__batch_multiple": 32, "rl__cache__megabytes": 1.0, "rl__buckets__lengths": 3}),
        ("rl", {"sampling__segment": 4, "student__remat": True}),
        ("rl", {"evaluate__samples": 1}),
        ("rl", {"mesh__data": 4, "mesh__fsdp": 2, "checkpoint__every": 7, "records__every": 3}),
        ("evaluate", {"rl__steps": 9, "rl__rewards__wrong": -1.0, "sft__steps": 9}),
        ("evaluate", {"evaluate__checkpoints": "all", "evaluate__distribution": False}),
        ("evaluate", {"evaluate__batch": 3, "sampling__segment": 4}),
        ("rl", {"data__test": "other.jsonl"}),
        ("evaluate", {"teacher__quantise": "int8", "student__remat": True}),
    ],
)
def test_accepted_when_complete(complete: Path, stage: str, changes: dict[str, Any]) -> None:
    look(complete, stage, **changes)


@pytest.mark.parametrize(
    ("stage", "setting", "old", "new"),
    [
        ("sft", "sft.steps", 2, 9),
        ("sft", "sft.optimizer.learning_rate", 1e-3, 2e-3),
        ("sft", "sft.answer_only", 0.7, 0.5),
        ("sft", "seed", 0, 1),
        ("sft", "student.hidden_size", 16, 32),
        ("sft", "data.problems.levels", 2, 3),
        ("sft", "lora.rank", 4, 8),
        ("sft", "sampling.max_new_tokens", 24, 16),
        ("pretrain", "teacher.steps", 2, 3),
        ("pretrain", "student.answer_only", 0.0, 0.6),
        ("pretrain", "student.param_dtype", "float32", "bfloat16"),
        ("rl", "rl.rewards.wrong", 0.0, -1.0),
        ("rl", "rl.curriculum.method", "uniform", "self_evolving"),
        ("rl", "sampling.temperature", 1.0, 0.5),
        ("rl", "teacher.quantise", "none", "int8"),
        ("rl", "rl.start", "sft", "base"),
        ("evaluate", "evaluate.samples", 2, 3),
        ("evaluate", "data.test", DATA.test, "other.jsonl"),
        ("evaluate", "sampling.max_new_tokens", 24, 16),
    ],
)
def test_refused_with_setting_old_new_and_fix(
    complete: Path, stage: str, setting: str, old: Any, new: Any
) -> None:
    with pytest.raises(ConfigError) as error:
        look(complete, stage, **{setting.replace(".", "__"): new})
    text = str(error.value)
    assert f"{complete / stage} was made with {setting}={old!r}, now {new!r}" in text
    assert f"fix: use another --workdir, or delete {complete / stage}" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"rl__max_skipped": 3},
        {"rl__max_skipped": 9, "pretrain__max_skipped": 9},
        {"records__every": 3, "checkpoint__keep": 5, "mesh__data": 4, "mesh__fsdp": 2},
        {"evaluate__samples": 1, "sft__steps": 9},
    ],
)
def test_accepted_when_begun(begun: Path, changes: dict[str, Any]) -> None:
    look(begun, "rl", **changes)


@pytest.mark.parametrize(
    ("setting", "new"),
    [
        ("sampling.segment", 4),
        ("student.remat", True),
        ("rl.batch_multiple", 32),
        ("rl.cache.megabytes", 1.0),
        ("rl.buckets.lengths", 3),
        ("rl.steps", 9),
    ],
)
def test_refused_when_begun_and_bits_would_change(begun: Path, setting: str, new: Any) -> None:
    with pytest.raises(ConfigError, match=f"was made with {setting}="):
        look(begun, "rl", **{setting.replace(".", "__"): new})


def test_another_product_of_an_upstream_stage_is_refused(complete: Path, tmp_path: Path) -> None:
    written(tmp_path, small(), complete=("pretrain", "sft", "rl"))
    look(tmp_path, "rl")
    done = json.loads((tmp_path / "sft" / "done.json").read_text())
    done["made"]["adapter"] = "made again, otherwise"
    (tmp_path / "sft" / "done.json").write_text(json.dumps(done))
    with pytest.raises(ConfigError, match=r"changed since .*rl was begun: start \(adapter"):
        look(tmp_path, "rl")
    look(tmp_path, "evaluate")  # it knows each student by its weights


def test_inputs_that_only_one_record_names_are_no_change(complete: Path) -> None:
    run = Run(small(), complete)
    refuse_other_inputs(run, run.stage("rl"), {"a": "1"}, {"b": "2"})
    with pytest.raises(ConfigError, match="changed since .*: b, c; wanted: the originals"):
        refuse_other_inputs(run, run.stage("rl"), {"b": "1", "c": "1"}, {"b": "2", "c": "2"})


def test_a_setting_added_later_has_its_default(complete: Path, tmp_path: Path) -> None:
    written(tmp_path, small(), complete=("pretrain", "sft"))
    done = json.loads((tmp_path / "sft" / "done.json").read_text())
    del done["own"]["answer_only"], done["shared"]["lora.dropout"]
    (tmp_path / "sft" / "done.json").write_text(json.dumps(done))
    with pytest.raises(ConfigError, match=r"sft.answer_only=0.0, now 0.7"):
        look(tmp_path, "sft")
    look(tmp_path, "sft", sft__answer_only=0.0)
    with pytest.raises(ConfigError, match=r"lora.dropout=0.0, now 0.1"):
        look(tmp_path, "sft", sft__answer_only=0.0, lora__dropout=0.1)


def test_a_directory_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path) -> None:
    for file in ("settings.json", "done.json"):
        (tmp_path / "sft").mkdir(exist_ok=True)
        (tmp_path / "sft" / file).write_text(json.dumps({"settings": {}, "inputs": {}}))
        with pytest.raises(ConfigError) as error:
            look(tmp_path, "sft")
        text = str(error.value)
        assert "was made by an earlier version" in text and f"format {FORMAT}" in text
        assert "\n" not in text


def test_other_worked_examples_in_the_same_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "shots.jsonl"
    file.write_text('{"question": "1 + 1?", "solution": "#### 2"}\n')
    config = small(data__chat__shots=str(file))
    written(tmp_path / "run", config, complete=("pretrain",), begun="sft")
    look(tmp_path / "run", "sft", data__chat__shots=str(file))
    file.write_text('{"question": "1 + 2?", "solution": "#### 3"}\n')
    with pytest.raises(ConfigError, match="worked examples of data.chat.shots"):
        look(tmp_path / "run", "sft", data__chat__shots=str(file))
