"""Stage distill, each kind of data and student: what it leaves, and what it learns on."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.data import batching
from distill_jax.evaluation import subjects
from distill_jax.models import hf_io
from distill_jax.run.record import record, setting_values, stage_key
from distill_jax.run.run import Run
from distill_jax.stages import checks, distill, distill_step, runner
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.distill_step import DistillStep
from distill_jax.training import state as states
from tests.stages.distilled import WAYS, Trained, first_step, one_update, way
from tests.stages.small import copy_stages, rows, small, weights
from tests.tiny import hidden

pytestmark = pytest.mark.slow

FUTURE = {**WAYS["student"], "samples_per_prompt": 4, "loss__future": 1.0}


def done(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "distill" / "done.json").read_text())


@pytest.mark.parametrize("name", WAYS)
def test_metrics_have_the_names_users_know(trained: Trained, name: str) -> None:
    common = {"step", "loss", "grad_norm", "learning_rate", "num_tokens", "epoch", "skipped"}
    evaluated = {"eval/accuracy", "eval/mean_length", "eval/terminated", "eval/forward_kl"}
    own = {f"completions/{name}" for name in ("mean_length", "clipped_ratio")}
    own |= {"accuracy", "student/mass", "teacher/mass"}
    first, *found = rows(trained[name], "distill")
    assert first["step"] == 0 and evaluated <= first.keys() and "loss" not in first
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    for row in found:
        drawn = name == "student" or row.get("on_policy") == 1.0
        assert common <= row.keys() and np.isfinite(row["loss"])
        assert ("jsd" in row, "kl" in row) == (name == "teacher", name != "teacher")
        assert ("ce" in row) == (not drawn) and (own <= row.keys()) == drawn
        assert not drawn or 0 < row["student/mass"] < 1 and 0 < row["teacher/mass"] < 1
        assert "teacher/overlap_ratio" not in row  # of loss.top_k alone
    assert evaluated <= found[-1].keys()
    tokens = [row["num_tokens"] for row in found]
    assert tokens == sorted(tokens) and tokens[0] > 8
    responses = np.diff([0, *(row["num_response_tokens"] for row in found)])
    assert (responses >= 8).all() and found[-1]["num_response_tokens"] < tokens[-1]
    # The student's own tokens alone are sampled.
    if name == "student" or any("on_policy" in row for row in found):
        drawn = [name == "student" or row["on_policy"] == 1.0 for row in found]
        sampled = np.diff([0, *(row["num_sampled_tokens"] for row in found)])
        np.testing.assert_array_equal(sampled, np.where(drawn, responses, 0))
        prefilled = np.diff([0, *(row["num_prefilled_tokens"] for row in found)])
        np.testing.assert_array_equal(prefilled > 0, drawn)
    else:
        assert "num_sampled_tokens" not in found[-1]


def test_completions_are_the_students_own(trained: Trained) -> None:
    found = rows(trained["student"], "distill", "completions.jsonl")
    assert [row["step"] for row in found] == [1] * 8 + [
        2
    ] * 8  # of 3 steps: the first, and each second
    assert all(
        row.keys() == {"step", "prompt", "completion", "gold", "correctness"} for row in found
    )
    assert not (trained["solutions"] / "distill" / "completions.jsonl").exists()
    # Each step takes the next problems of the epoch's shuffle.
    problems = Run(way("student"), trained["student"]).data.problems("train").problems
    for step in (0, 1):
        index = batching.batch_indices(0, step, 8, len(problems))
        assert [row["prompt"] for row in found[8 * step : 8 * step + 8]] == [
            problems[i].question for i in index
        ]


def test_what_is_left_behind(trained: Trained, finished: Path) -> None:
    assert weights(trained["student"], "distill") != weights(finished, "sft")
    assert not (trained["student"] / "distill" / "model").exists()
    # The whole model starts as the base with sft's adapter added, and moves from there.
    ctx = Run(way("teacher"), trained["teacher"])
    model, start, frozen = distill.starting_student(ctx, ctx.stage("distill").settings)
    assert model.lora is None and frozen == {"lora": {}}
    adapted = ctx.load_student("sft")
    tokens = np.arange(8, dtype=np.int32)[None]
    np.testing.assert_allclose(
        hidden(model, states.join(start, frozen), tokens),
        hidden(adapted.model, adapted.params, tokens),
        atol=1e-5,
    )
    geometry, base = hf_io.load_hf(trained["teacher"] / "distill" / "model")
    assert geometry == model.config
    pairs = zip(jax.tree.leaves(base), jax.tree.leaves(start["base"]), strict=True)
    moved = [np.max(np.abs(a - np.asarray(b))) for a, b in pairs]
    assert 1e-4 < max(moved) < 1e-2  # two or three steps of at most 1e-3


def test_a_checkpoint_of_all_parameters_is_evaluated(trained: Trained) -> None:
    """It holds what was exported at its step, under a digest of its own, and no adapter."""
    ctx = Run(way("teacher", evaluate__checkpoints="all"), trained["teacher"])
    found = {s.name: s for s in subjects.find(ctx, ctx.config.plan["evaluate"])}
    assert list(found) == ["teacher", "base", "sft", "distill_step_3", "distill"]
    loaded = found["distill_step_3"].load()
    _, exported = hf_io.load_hf(trained["teacher"] / "distill" / "model")
    assert loaded.model.lora is None and not loaded.params["lora"]
    jax.tree.map(np.testing.assert_array_equal, loaded.params["base"], exported)
    assert found["distill_step_3"].weights.keys() == {"model"}


@pytest.mark.parametrize("name", ["solutions", "teacher"])
def test_evaluate_finds_the_distilled_student(trained: Trained, name: str) -> None:
    ctx = Run(way(name), trained[name])
    found = {
        subject.name: subject.path for subject in subjects.find(ctx, ctx.config.plan["evaluate"])
    }
    assert list(found) == ["teacher", "base", "sft", "distill"]
    where = found["distill"]
    assert where == trained[name] / "distill" / ("model" if name == "teacher" else "adapter")
    assert ctx.digest(where) != ctx.digest(trained[name] / "sft" / "adapter")
    # Loaded as evaluate does it, it is the model that was trained.
    subject = subjects.student(ctx, "distill")
    loaded = subject.load()
    tokens = np.arange(8, dtype=np.int32)[None]
    got = hidden(loaded.model, loaded.params, tokens)
    if name == "teacher":
        _, base = hf_io.load_hf(where)
        want = hidden(loaded.model.replace(lora=None), {"base": base, "lora": {}}, tokens)
        np.testing.assert_allclose(got, want, atol=1e-5)
    bare = ctx.load_student("base")
    assert np.max(np.abs(got - hidden(bare.model, bare.params, tokens))) > 1e-4


def test_report_names_the_distilled_student(trained: Trained) -> None:
    runner.run(small(stages=("evaluate",)), trained["teacher"])
    text = (trained["teacher"] / "report.md").read_text(encoding="utf-8")
    assert "student after distill (start: sft)" in text and "(report/distill.png)" in text


# --- which step draws -------------------------------------------------------------------------


def test_lambda_is_the_share_of_steps_that_draw(trained: Trained) -> None:
    settings = DistillSettings(lmbda=0.3)
    key = jax.random.key
    drawn = [distill_step.draws(settings, key(5), step) for step in range(400)]
    # Standard deviation of the share: 2.3%.
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.07)
    assert drawn[:50] != [distill_step.draws(settings, key(6), step) for step in range(50)]
    found = rows(trained["mixed"], "distill")[1:]
    mixed = way("mixed").plan["distill"]
    want = [float(distill_step.draws(mixed, key(0), step)) for step in range(6)]
    assert [row["on_policy"] for row in found] == want and 0 < sum(want) < 6


# --- what a step does -------------------------------------------------------------------------


def test_each_step_samples_anew(trained: Trained) -> None:
    step, state = first_step(trained["student"], way("student"), (1, 1, 1))
    problems, given = step.rows.problems[:8], step.rows.examples[:8]
    one, again, other = (
        [example.response for example in step._draw(state, at, problems, given)[0]]
        for at in (0, 0, 1)
    )
    step.close()
    assert one == again and sum(a != b for a, b in zip(one, other, strict=True)) >= 6


def test_a_step_draws_several_samples_of_each_problem(trained: Trained) -> None:
    config = way("student", distill__samples_per_prompt=4)
    step, state = first_step(trained["student"], config, (1, 1, 1))
    _, _, records = step(state, 0)
    step.close()
    prompts = [row["prompt"] for row in records]
    assert prompts == prompts[:2] * 4 and len(set(prompts)) == 2
    texts = {row["completion"] for row in records if row["prompt"] == prompts[0]}
    assert len(texts) > 1
    # The curriculum counts problems, not samples.
    assert step.curriculum.batch == 2 and config.plan["distill"].prompts == 2


def test_the_future_term_resumes_to_equal_bits(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {**FUTURE, "accumulate": 2, "eval_every": 0, "eval_problems": 64}
    how = {f"distill__{name}": value for name, value in names.items()}
    config = small(stages=("distill",), checkpoint__every=1, **how)
    whole, broken = (copy_stages(begun, tmp_path / x, "pretrain", "sft") for x in ("a", "b"))
    runner.run(config, whole)
    real = DistillStep.__call__

    def breaks(self: DistillStep, state: Any, step: int) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return real(self, state, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DistillStep, "__call__", breaks)
        runner.run(config, broken)
    runner.run(config, broken)
    assert weights(broken, "distill") == weights(whole, "distill")
    found = rows(whole, "distill")
    assert rows(broken, "distill") == found and all(row["kl_to_go"] > 0 for row in found)


def test_hard_sequence_distillation_runs_no_teacher_in_the_step(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = {"distill__loss__top_k": 0, "distill__loss__kd_weight": 0.0}
    config = way("teacher", **hard, distill__loss__ce_weight=1.0)
    step, state = first_step(trained["teacher"], config, (1, 1, 1))
    monkeypatch.setattr(step, "teacher", None)  # reading its weights would fail
    _, metrics, _ = step(state, 0)
    step.close()
    assert metrics["loss"] == pytest.approx(metrics["ce"]) and not {"kl", "jsd"} & metrics.keys()


def test_the_future_term_is_of_the_whole_distribution() -> None:
    how = {f"distill__{name}": value for name, value in FUTURE.items()}
    with pytest.raises(ConfigError, match="distill.loss.future=1.0 with sampling.top_p=0.9"):
        small(stages=("pretrain", "distill"), sampling__top_p=0.9, **how)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**WAYS["student"], "samples_per_prompt": 3}, "batch_size=8 of samples_per_prompt=3"),
        ({"data": "student_samples", "loss__kd_weight": 0.0}, "ce_weight=0.3 with data=student"),
        ({**WAYS["student"], "loss__future": 1.0}, "future=1.0 with samples_per_prompt=1"),
        (
            {"loss__future": 1.0},
            "loss.future=1.0 with data=solutions; wanted: data=student_samples",
        ),
        ({**FUTURE, "batch_size": 24, "accumulate": 4}, "6 problems a step and accumulate=4"),
        ({"lmbda": 0.5, "loss__kd_weight": 0.0}, "kd_weight=0 with data=solutions and lmbda=0.5"),
    ],
)
def test_steps_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**{f"distill__{name}": value for name, value in changes.items()})


def test_stored_scores_are_those_of_the_teacher(trained: Trained, tmp_path: Path) -> None:
    plain, _ = one_update(trained["teacher"], way("teacher"), (1, 1, 1))
    kept = {"distill__cache__megabytes": 1.0, "distill__cache__directory": str(tmp_path)}
    for hits in (0.0, 8.0):  # the second time from disk
        got, figures = one_update(trained["teacher"], way("teacher", **kept), (1, 1, 1))
        assert figures["teacher_cache/hits"] == hits
        jax.tree.map(np.testing.assert_array_equal, got, plain)


def test_the_student_comes_nearer_to_its_teacher(trained: Trained, tmp_path: Path) -> None:
    workdir = copy_stages(trained["solutions"], tmp_path / "run", "pretrain")
    changes = {
        "trainable": "full",
        "steps": 40,
        "eval_every": 40,
        "eval_problems": 8,
        "loss__temperature": 1.0,
        "loss__kd_weight": 1.0,
        "loss__ce_weight": 0.0,
        "optimizer__learning_rate": 1e-2,
    }
    runner.run(way("solutions", **{f"distill__{k}": v for k, v in changes.items()}), workdir)
    found = rows(workdir, "distill")
    before, after = found[0], found[-1]
    assert after["eval/forward_kl"] < 0.5 * before["eval/forward_kl"]
    assert after["eval/jensen_shannon"] < 0.5 * before["eval/jensen_shannon"]
    assert found[-1]["kl"] < 0.5 * found[1]["kl"]


# --- settings ---------------------------------------------------------------------------------


def test_who_depends_on_whose_settings(trained: Trained) -> None:
    workdir = trained["solutions"]
    other = {"distill__loss__temperature": 2.0}
    with pytest.raises(ConfigError, match="distill.loss.temperature=3.0, now 2.0") as error:
        checks.prepare(Run(small(stages=("distill",), **other), workdir))
    assert f"--adopt={workdir}" in str(error.value)
    # Evaluate accepts it; a bare start does not depend on sft, another start does.
    checks.prepare(Run(small(stages=("evaluate",), **other), workdir))
    own, shared = setting_values(small(), "rl", rounding=True)
    assert not any("distill" in name for name in (*own, *shared))
    changed = small(sft__steps=9)
    assert stage_key(small(), "distill") == stage_key(changed, "distill")
    from_sft = {"distill__start": "sft"}
    assert stage_key(small(**from_sft), "distill") != stage_key(
        small(**from_sft, sft__steps=9), "distill"
    )


def test_a_start_from_sft_needs_sft(trained: Trained, tmp_path: Path) -> None:
    workdir = copy_stages(trained["solutions"], tmp_path / "run", "pretrain")
    with pytest.raises(CheckpointError, match=r"no student in .*/sft; fix: run stage sft first"):
        checks.prepare(Run(way("student"), workdir))
    run = Run(way("student"), trained["student"])
    before = record(run, run.stage("distill"), contents=True, rounding=True).inputs
    wanted = {"start (adapter of sft)", "train problems", "validation problems"}
    assert wanted <= before.keys()
    workdir = copy_stages(trained["student"], tmp_path / "other", "pretrain", "sft", "distill")
    file = "adapter/adapter_model.safetensors"
    (workdir / "sft" / file).write_bytes((workdir / "distill" / file).read_bytes())
    with pytest.raises(ConfigError, match=r"changed since .*start \(adapter of sft\)"):
        runner.run(way("student"), workdir)


def test_what_cannot_be_compared_is_no_figure(trained: Trained) -> None:
    # No solution of validation fits: there is no divergence, and 0 would be one.
    how = {"sampling__max_new_tokens": 4, "sampling__segment": 4}
    step, state = first_step(trained["student"], way("student", **how), (1, 1, 1))
    found = step.validate(state)
    step.close()
    assert "eval/accuracy" in found
    assert not any(name.endswith(("_kl", "shannon", "agreement")) for name in found)
