"""Stages taken over from another work directory, on made-up directories."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from configs import presets
from distill_jax.run.adopt import adopt
from distill_jax.run.config import RunConfig
from distill_jax.run.record import FORMAT, setting_values

WHOLE = presets.smoke()
SMOKE = dataclasses.replace(WHOLE, stages=tuple(WHOLE.plan))


def make(config: RunConfig, root: Path, *names: str, made: str = "digest") -> Path:
    """A work directory with a tokenizer and these complete stages of a config."""
    for name in names:
        own, shared = setting_values(config, name, rounding=True)
        done = {"format": FORMAT, "kind": config.plan[name].kind, "own": own, "shared": shared}
        (root / name / "adapter").mkdir(parents=True)
        (root / name / "adapter" / "weights").write_text(name)
        models = ("teacher", "student") if name == "pretrain" else ("student",)
        digests = {model: f"{made} of {name}" for model in models}
        done |= {"inputs": {}, "made": digests, "figures": {}}
        (root / name / "done.json").write_text(json.dumps(done))
    (root / "tokenizer").mkdir(parents=True)
    (root / "tokenizer" / "tokenizer.json").write_text("{}")
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make(SMOKE, tmp_path / "source", *SMOKE.plan)


def test_equal_stages_come_as_hard_links(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    taken = adopt(SMOKE, source, target)
    assert taken == ["pretrain", "sft", "distill", "rl"]  # evaluate makes results: never
    assert sorted(p.name for p in target.iterdir()) == sorted([*taken, "tokenizer"])
    for path in (f for name in (*taken, "tokenizer") for f in (source / name).rglob("*")):
        mine = target / path.relative_to(source)
        assert mine.is_dir() if path.is_dir() else mine.samefile(path)


def test_a_changed_stage_and_those_that_read_it_stay_away(source: Path, tmp_path: Path) -> None:
    taken = adopt(SMOKE.replace("sft", steps=9), source, tmp_path / "target")
    assert taken == ["pretrain", "distill"]
    assert not (tmp_path / "target" / "sft").exists() and not (tmp_path / "target" / "rl").exists()


def test_a_changed_shared_setting_counts(source: Path, tmp_path: Path) -> None:
    config = SMOKE
    flat = {**config.__dict__, "seed": 1}
    assert adopt(RunConfig(**flat), source, tmp_path / "target") == []
    assert not (tmp_path / "target").exists()


def test_a_setting_without_effect_does_not_count(source: Path, tmp_path: Path) -> None:
    config = SMOKE.replace("sft", max_skipped=3, eval_batch=7)
    assert adopt(config, source, tmp_path / "target") == ["pretrain", "sft", "distill", "rl"]


def test_a_setting_that_the_record_lacks_counts_at_its_default(
    source: Path, tmp_path: Path
) -> None:
    file = source / "sft" / "done.json"
    done = json.loads(file.read_text())
    assert done["own"].pop("accumulate") == 1
    file.write_text(json.dumps(done))
    assert "sft" in adopt(SMOKE, source, tmp_path / "same")
    other = SMOKE.replace("sft", accumulate=2)
    assert "sft" not in adopt(other, source, tmp_path / "other")


@pytest.mark.parametrize("change", [{"format": 1}, {"kind": "rl"}])
def test_another_format_or_kind_stays_away(source: Path, tmp_path: Path, change: dict) -> None:
    file = source / "sft" / "done.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert adopt(SMOKE, source, tmp_path / "target") == ["pretrain", "distill"]


def test_a_half_finished_stage_stays_away(source: Path, tmp_path: Path) -> None:
    (source / "pretrain" / "done.json").unlink()
    assert adopt(SMOKE, source, tmp_path / "target") == []


def test_what_the_target_has_already_stays(source: Path, tmp_path: Path) -> None:
    target = make(SMOKE, tmp_path / "target", "pretrain", made="digest")
    (target / "pretrain" / "adapter" / "weights").write_text("mine")
    assert adopt(SMOKE, source, target) == ["pretrain", "sft", "distill", "rl"]
    assert (target / "pretrain" / "adapter" / "weights").read_text() == "mine"
    assert not (target / "tokenizer" / "tokenizer.json").samefile(
        source / "tokenizer" / "tokenizer.json"
    )


@pytest.mark.parametrize("used", [False, True])
def test_a_tokenizer_of_other_settings_that_no_stage_has_used_is_replaced(
    source: Path, tmp_path: Path, used: bool
) -> None:
    (source / "tokenizer" / "made_from.json").write_text('{"seed": 0}')
    target = make(SMOKE, tmp_path / "target")
    (target / "tokenizer" / "made_from.json").write_text('{"seed": 1}')
    if used:
        (target / "other").mkdir()
        (target / "other" / "settings.json").write_text("{}")
    assert adopt(SMOKE, source, target) == ["pretrain", "sft", "distill", "rl"]
    got = json.loads((target / "tokenizer" / "made_from.json").read_text())
    assert got == {"seed": 1 if used else 0}


def test_what_was_made_from_other_things_is_not_taken(source: Path, tmp_path: Path) -> None:
    target = make(SMOKE, tmp_path / "target", "pretrain", made="another digest")
    assert adopt(SMOKE, source, target) == []  # all read the models


def test_files_are_copied_where_links_cannot_be_made(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert "sft" in adopt(SMOKE, source, tmp_path / "target")
    mine, theirs = (root / "sft/adapter/weights" for root in (tmp_path / "target", source))
    assert mine.read_text() == "sft" and not mine.samefile(theirs)


def test_a_tree_that_was_left_half_linked_is_made_again(source: Path, tmp_path: Path) -> None:
    left = tmp_path / "target" / "sft.partial"
    left.mkdir(parents=True)
    (left / "stray").write_text("x")
    assert "sft" in adopt(SMOKE, source, tmp_path / "target")
    assert not left.exists() and not (tmp_path / "target" / "sft" / "stray").exists()


def test_a_stage_that_the_run_does_not_need_stays_away(source: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SMOKE, stages=("rl", "evaluate"))
    assert adopt(config, source, tmp_path / "target") == ["pretrain", "sft", "rl"]
    config = dataclasses.replace(SMOKE, stages=("pretrain", "evaluate"))
    assert adopt(config, source, tmp_path / "other") == ["pretrain"]


def test_a_stage_is_left_where_the_one_that_it_reads_was_redone(
    source: Path, tmp_path: Path
) -> None:
    file = source / "rl" / "done.json"
    done = json.loads(file.read_text())
    file.write_text(json.dumps({**done, "inputs": {"start (student of sft)": "an earlier one"}}))
    taken = adopt(SMOKE, source, tmp_path / "target")
    assert "sft" in taken and "rl" not in taken
