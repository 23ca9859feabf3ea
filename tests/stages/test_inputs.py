"""A stage is not resumed on other data, nor skipped when it began with another adapter."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.run.data import Data
from distill_jax.run.record import inputs
from distill_jax.run.run import Run
from distill_jax.stages import runner
from tests.stages.small import copy_stages, small

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("complete", [True, False])
def test_rl_does_not_go_on_from_another_adapter(
    finished: Path, tmp_path: Path, complete: bool
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl")
    file = "adapter/adapter_model.safetensors"
    shutil.copy(workdir / "rl" / file, workdir / "sft" / file)
    if not complete:
        (workdir / "rl" / "done.json").unlink()
    with pytest.raises(ConfigError, match=r"changed since .*rl was begun: start"):
        runner.run(small(stages=("rl",)), workdir)


def test_rl_does_not_go_on_from_an_adapter_that_was_made_again(
    finished: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl")
    shutil.rmtree(workdir / "sft")
    again = {"sft__answer_only": 0.0}
    runner.run(small(stages=("sft",), **again), workdir)
    for stages in (("rl",), ("sft", "rl")):
        with pytest.raises(ConfigError, match="changed since .*rl was begun: start") as error:
            runner.run(small(stages=stages, **again), workdir)
        assert "fix: use another --workdir, or delete that directory" in str(error.value)
    # Made again as it was, it is the same adapter.
    shutil.rmtree(workdir / "sft")
    runner.run(small(stages=("sft", "rl")), workdir)


def test_rl_does_not_go_on_with_other_problems(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl")
    (workdir / "rl" / "done.json").unlink()
    real = Data.problems

    def shorter(self: Data, split: str) -> Any:
        found = real(self, split)
        return found._replace(problems=found.problems[1:], prompts=found.prompts[1:])

    monkeypatch.setattr(Data, "problems", shorter)
    message = "changed since .*rl was begun: train problems, validation problems"
    with pytest.raises(ConfigError, match=message):
        runner.run(small(stages=("rl",)), workdir)


def test_a_complete_stage_may_outlive_what_it_was_made_from(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "rl")
    runner.run(small(stages=("rl",)), workdir)


def test_contents_count_not_names(finished: Path, tmp_path: Path) -> None:
    for role in ("teacher", "student"):
        shutil.copytree(finished / "pretrain" / role / "model", tmp_path / role)
    data = tmp_path / "data"
    data.mkdir()
    for split, first in (("train", 0), ("validation", 100), ("test", 200)):
        rows = [
            {"question": f"What is {n}+1?", "answer": f"#### {n + 1}"} for n in (first, first + 1)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (data / f"{split}.jsonl").write_text(text)
    paths = {f"{role}__path": str(tmp_path / role) for role in ("teacher", "student")}

    def now() -> dict[str, str]:
        run = Run(small(data__source=str(data), **paths), tmp_path)
        return inputs(run, run.stage("rl"), contents=True)

    first = now()
    assert first == now()
    models = {f"weights of the {role}" for role in ("teacher", "student")}
    assert models | {"train problems", "validation problems"} <= set(first)
    train = data / "train.jsonl"
    train.write_text(train.read_text().replace("#### 1", "#### 7"))
    second = now()
    assert {n for n in first if first[n] != second[n]} == {"train problems"}
    weights = tmp_path / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert {n for n in first if second[n] != now()[n]} == {"weights of the teacher"}


def test_a_complete_stage_is_refused_when_what_it_read_has_changed(
    finished: Path, tmp_path: Path
) -> None:
    start = tmp_path / "adapter"
    shutil.copytree(finished / "sft" / "adapter", start)
    workdir = copy_stages(finished, tmp_path / "run", "pretrain")
    config = small(stages=("rl",), rl__start=str(start))
    runner.run(config, workdir)
    runner.run(config, workdir)  # complete, skipped
    shutil.rmtree(start)
    shutil.copytree(finished / "rl" / "adapter", start)
    with pytest.raises(ConfigError, match=r"changed since .* start .*adapter"):
        runner.run(config, workdir)


def test_an_adapter_of_another_base_is_refused(finished: Path, tmp_path: Path) -> None:
    base, start = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(finished / "pretrain" / "student" / "model", base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    shutil.copytree(finished / "sft" / "adapter", start)
    settings = json.loads((start / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(base)
    (start / "adapter_config.json").write_text(json.dumps(settings))
    workdir = copy_stages(finished, tmp_path / "run", "pretrain")
    with pytest.raises(CheckpointError, match=r"was trained on .*base; wanted: an adapter of"):
        runner.run(small(stages=("rl",), rl__start=str(start)), workdir)


def test_an_edited_reward_is_another_input(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `python -m` looks first
    source = tmp_path / "mine" / "reward.py"
    source.parent.mkdir()
    source.write_text("def good(prompts, completions, gold, **columns): return [1.0] * len(gold)")
    reference = str(finished / "sft")
    run = Run(small(rl__rewards__custom="mine.reward:good", rl__start=reference), finished)
    first = inputs(run, run.stage("rl"), contents=False)
    names = {"rewards.custom mine.reward:good", f"start {reference} (adapter)"}
    assert names <= set(first)
    source.write_text(source.read_text().replace("1.0", "2.0"))
    second = inputs(run, run.stage("rl"), contents=False)
    assert [name for name in first if first[name] != second[name]] == [min(names)]
    source.unlink()  # a complete stage may outlive it
    assert set(first) - set(inputs(run, run.stage("rl"), contents=False)) == {min(names)}


def test_damaged_adapter(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    path = workdir / "sft" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="adapter_model.safetensors"):
        runner.run(small(), workdir)
