"""Every stage leaves behind what it says; complete stages are skipped, other settings refused."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.models import hf_io, peft_io
from distill_jax.run.config import to_dict
from distill_jax.run.console import write_json
from distill_jax.run.run import Run
from distill_jax.stages import checks, evaluate, runner
from distill_jax.training import optimizer
from distill_jax.training.records import read_rows
from tests.stages.small import copy_stages, rows, run_instead, small, weights

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "sft", "rl", "evaluate")


def refuse(*_: Any) -> None:
    raise AssertionError("this stage must not run again")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_pretrain_leaves_hugging_face_directories(finished: Path, role: str) -> None:
    where = finished / "pretrain" / role / "model"
    geometry, base = hf_io.load_hf(where)
    assert (geometry.hidden_size, geometry.num_layers) == (16, 1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(where)
    assert len(tokenizer) <= geometry.vocab_size and geometry.vocab_size % 64 == 0
    assert geometry.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(base))
    steps = [row["step"] for row in rows(finished / "pretrain", role)]
    assert steps == [1, 2]


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_adapters_load_and_have_moved(finished: Path, stage: str) -> None:
    geometry = hf_io.load_config(finished / "pretrain" / "student" / "model")
    lora, settings = peft_io.load_adapter(finished / stage / "adapter", geometry)
    assert settings == small().lora
    assert any(np.any(leaf) for leaf in jax.tree.leaves(_named(lora, "lora_B")))
    assert weights(finished, "sft") != weights(finished, "rl")
    about = json.loads((finished / stage / "adapter" / "adapter_config.json").read_text())
    # Whoever may read the one may read the others: safetensors alone would write for the owner.
    names = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    assert len({(finished / stage / "adapter" / n).stat().st_mode & 0o777 for n in names}) == 1
    assert about["base_model_name_or_path"] == str(finished / "pretrain" / "student" / "model")


def _named(tree: Any, name: str) -> list[Any]:
    if not isinstance(tree, dict):
        return []
    return [x for k, v in tree.items() for x in ([v] if k == name else _named(v, name))]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_records_what_it_was(finished: Path, stage: str) -> None:
    done = json.loads((finished / stage / "done.json").read_text())
    assert done["stage"] == stage and done["kind"] == stage and done["shared"]["seed"] == 0
    assert json.loads((finished / stage / "settings.json").read_text()).items() <= done.items()
    splits = small().plan[stage].splits()  # of its own, whatever else was read before it
    assert done["dropped_prompts"] == dict.fromkeys(splits, 0)
    run = json.loads((finished / stage / "run.json").read_text())
    assert run["config"] == json.loads(json.dumps(to_dict(small(checkpoint__every=1))))
    (start,) = run["starts"]
    assert start["versions"]["jax"] == jax.__version__
    assert start["devices"]["count"] == jax.device_count() and start["devices"]["platform"] == "cpu"
    assert start["git"] is None or len(start["git"]["commit"]) == 40


def test_supervised_metrics(finished: Path) -> None:
    for row in rows(finished, "sft"):
        assert {"step", "loss", "grad_norm", "skipped", "num_tokens"} <= row.keys()
    # Warm-up of one step, then the peak; 8 rows a step of 64.
    config = small()
    rate = optimizer.learning_rate(config.plan["sft"].optimizer, 2)
    wanted = [(float(rate(i)), 8 * (i + 1) / 64) for i in range(2)]
    got = [(row["learning_rate"], row["epoch"]) for row in rows(finished, "sft")]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    # By hash of the row, 70% of 64 rows: standard deviation 5.7%.
    figures = json.loads((finished / "sft" / "done.json").read_text())["figures"]
    assert figures["bare_answers"] == pytest.approx(0.7, abs=0.17)
    full = read_rows(finished / "sft" / "metrics.jsonl")
    # A step that compiled is not timed.
    assert all(("step_time" in row) != ("perf/compiled_programs" in row) for row in full)
    tokens = [row["num_tokens"] for row in full]
    assert tokens == sorted(tokens) and tokens[0] > 8
    assert all(8 <= row["num_response_tokens"] < row["num_tokens"] for row in full)
    assert not any("num_sampled_tokens" in row for row in full)


def test_rl_metrics_have_the_names_users_know(finished: Path) -> None:
    found = read_rows(finished / "rl" / "metrics.jsonl")
    assert [row["step"] for row in found] == [0, 1, 2]
    assert set(found[0]) == {"step", "eval/accuracy", "eval/mean_length", "eval/terminated"}
    names = {
        "reward", "reward_std", "frac_reward_zero_std",
        "frac_groups_all_right", "frac_groups_all_wrong",
        "rewards/correctness/mean", "rewards/correctness/std",
        "rewards/intrinsic/mean", "rewards/intrinsic/std", "rewards/intrinsic/scale",
        "learning_rate", "epoch",
        "completions/mean_length", "completions/min_length", "completions/max_length",
        "completions/clipped_ratio", "completions/mean_terminated_length",
        "entropy", "clip_ratio/low_mean", "clip_ratio/low_min", "clip_ratio/high_mean",
        "clip_ratio/high_max", "clip_ratio/region_mean",
        "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max",
        "sampling/importance_sampling_ratio/min", "sampling/importance_sampling_ratio/mean",
        "sampling/importance_sampling_ratio/max", "num_tokens", "loss", "grad_norm",
    }  # fmt: skip
    for row in found[1:]:
        assert names <= row.keys(), names - row.keys()
        assert row["sampling/sampling_logp_difference/max"] < 1e-3
        # All that was drawn is trained on; a prompt is read once for its 4 samples.
        assert row["num_sampled_tokens"] == row["num_response_tokens"]
        assert 4 * row["num_prefilled_tokens"] == row["num_tokens"] - row["num_sampled_tokens"]
    # 16 completions in each of two steps.
    both = 16 * sum(row["completions/mean_length"] for row in found[1:])
    assert found[-1]["num_sampled_tokens"] == pytest.approx(both)
    # After one rollout the running scale is that rollout's root mean square.
    drawn = [r["intrinsic"] for r in rows(finished, "rl", "completions.jsonl") if r["step"] == 1]
    rms = np.sqrt(np.mean(np.square(drawn)))
    np.testing.assert_allclose(found[1]["rewards/intrinsic/scale"], rms, rtol=1e-5)


def test_completions_hold_every_reward(finished: Path) -> None:
    found = rows(finished, "rl", "completions.jsonl")
    assert [row["step"] for row in found] == [1] * 16 + [2] * 16
    columns = {"step", "prompt", "completion", "gold", "correctness", "intrinsic", "reward"}
    assert all(row.keys() == columns | {"advantage"} for row in found)
    # One sample of every prompt first: the samples of a group are a stride apart.
    groups = np.array([row["advantage"] for row in found]).reshape(2, 4, 4)
    np.testing.assert_allclose(groups.sum(axis=1), 0.0, atol=1e-3)


def test_report(finished: Path) -> None:
    text = (finished / "report.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    for name in ("teacher", "base", "sft", "rl"):
        assert any(name in cell for cell in rows), name
    assert "level 1" in text and "McNemar" in text
    for name in ("pretrain_teacher", "pretrain_student", "sft", "rl"):
        assert f"(report/{name}.png)" in text
        assert (finished / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_complete_stages_are_skipped(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("pretrain", "sft", "rl"):
        run_instead(monkeypatch, stage, refuse)
    monkeypatch.setattr(evaluate, "_evaluate", refuse)
    monkeypatch.setattr(evaluate.token_scores, "_score", refuse)
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    (finished / "report.md").unlink()
    stale = finished / "rl" / "x.json.999999999.partial"  # of a process that was killed
    stale.write_text("half")
    os.utime(stale, (1.0, 1.0))
    runner.run(small(), finished)
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    changed = {p.relative_to(finished).parts[0] for p in after if after[p] != before.get(p)}
    assert changed == {"report", "report.md", "report.html", "config.json", "view.json"}
    assert before.keys() == after.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "/pretrain was made with seed=0, now 1"),
        ({"rl__steps": 3}, "/rl was made with rl.steps=2, now 3"),
        (
            {"stages": ("rl",), "sft__optimizer__learning_rate": 1.0},
            "/sft was made with sft.optimizer.learning_rate=0.001, now 1.0",
        ),
    ],
)
def test_other_settings_are_refused(
    finished: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in STAGES:
        run_instead(monkeypatch, stage, refuse)
    with pytest.raises(ConfigError) as error:
        runner.run(small(**changes), finished)
    assert message in str(error.value) and "fix: use another --workdir" in str(error.value)
    # What may be taken along: the stages that stay the same.
    assert f"--adopt={finished} with another --workdir keeps the stages" in str(error.value)


def test_settings_of_a_stage_that_never_began_may_change(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    checks.prepare(Run(small(rl__steps=7), workdir))


@pytest.mark.parametrize(
    ("stage", "needs"), [("sft", "pretrain"), ("rl", "pretrain"), ("evaluate", "pretrain")]
)
def test_a_stage_by_itself_says_what_must_come_first(
    tmp_path: Path, stage: str, needs: str
) -> None:
    with pytest.raises(CheckpointError, match=f"run stage {needs} first") as error:
        runner.run(small(stages=(stage,)), tmp_path)
    assert f"--config.stages={needs}, --workdir={tmp_path}" in str(error.value)
    assert not (tmp_path / stage).exists()


def test_rl_by_itself_needs_sft(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain")
    with pytest.raises(CheckpointError, match="run stage sft first"):
        runner.run(small(stages=("rl",)), workdir)


def test_evaluation_before_rl_is_completed_after_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    asked: list[str] = []

    def pretend(run: Any, settings: Any, subject: Any, *_: Any) -> dict[str, Any]:
        asked.append(subject.name)
        result = json.loads((finished / "evaluate" / f"{subject.name}.json").read_text())
        del result["made_from"]
        return result

    monkeypatch.setattr(evaluate, "_evaluate", pretend)
    # Nobody drew the tokens of pretended answers.
    only = dataclasses.replace(small(report__problems=0), stages=("evaluate",))
    runner.run(only, workdir)
    assert asked == ["teacher", "base", "sft"]
    shutil.copytree(finished / "rl", workdir / "rl")
    runner.run(only, workdir)
    assert asked == ["teacher", "base", "sft", "rl"]
    shutil.copytree(workdir / "sft" / "adapter", workdir / "rl" / "adapter", dirs_exist_ok=True)
    runner.run(only, workdir)
    assert asked[4:] == ["rl"], "evaluated as it was before, not as it is"
    assert "McNemar" in (workdir / "report.md").read_text(encoding="utf-8")


def test_process_0_alone_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write_json(tmp_path / "b.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_stage_is_refused_once_the_stage_that_it_reads_was_redone(
    finished: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "rl")
    with pytest.raises(ConfigError, match=r"changed since .* start \(adapter of sft\)"):
        runner.run(small(sft__steps=3, stages=("pretrain", "sft", "rl")), workdir)


def test_an_earlier_version_is_refused_before_anything_is_written(
    finished: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft", "rl")
    for path in (*workdir.glob("*/done.json"), *workdir.glob("*/settings.json")):
        held = json.loads(path.read_text())
        del held["format"]
        path.write_text(json.dumps(held))
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    for stages in (("pretrain", "sft", "rl"), ("rl",), ("evaluate",)):
        with pytest.raises(ConfigError) as error:
            runner.run(small(stages=stages), workdir)
        text = str(error.value)
        assert f"{workdir / 'pretrain'} was made by an earlier version" in text
        assert "fix: use another --workdir, or delete that directory" in text
        assert "\n" not in text
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert after == before
