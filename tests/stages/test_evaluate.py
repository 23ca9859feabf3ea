"""Stage evaluate: its subjects, its files, and going on after a stop."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import CheckpointError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.evaluation import distribution, subjects
from distill_jax.evaluation.held_out import greedy_answers, held_out
from distill_jax.evaluation.runner import Sampler
from distill_jax.inference import store
from distill_jax.models import hf_io, peft_io
from distill_jax.rollout import refill
from distill_jax.run.run import Run
from distill_jax.run.stop import Interrupted, StopSignal
from distill_jax.stages import evaluate, runner
from tests.stages.evaluated import DONE, only, result, stage
from tests.stages.hf import tokenizer, write_model
from tests.stages.small import copy_stages, small

pytestmark = pytest.mark.slow

STUDENTS = ("base", "sft", "rl")


def view(workdir: Path, name: str) -> dict[str, Any]:
    return json.loads((workdir / "evaluate" / name / "evaluation_results.json").read_text())


@pytest.fixture(scope="module")
def more(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, evaluated again with its checkpoints and its student as a model given."""
    workdir = tmp_path_factory.mktemp("more") / "run"
    shutil.copytree(finished, workdir)
    runner.run(only(evaluate__checkpoints="all", evaluate__model=str(plain(workdir))), workdir)
    return workdir


def plain(workdir: Path) -> Path:
    return workdir / "pretrain" / "student" / "model"


def test_choosing_more_leaves_what_is_there(finished: Path, more: Path) -> None:
    for name in ("teacher", *STUDENTS):
        for file in (f"{name}.json", f"{name}.checkpoint.jsonl"):
            before, after = (w / "evaluate" / file for w in (finished, more))
            assert before.read_bytes() == after.read_bytes()
        assert view(finished, name)["evaluation_time"] == view(more, name)["evaluation_time"]


def test_figures_are_those_of_the_last_completion(finished: Path, more: Path) -> None:
    before, after = (json.loads((w / "evaluate/done.json").read_text()) for w in (finished, more))
    assert set(after["figures"]) == {*before["figures"], "rl_step_1", "rl_step_2", "model"}
    assert {**after, "figures": 0} == {**before, "figures": 0}


def test_checkpoints_and_the_model_given_are_what_they_hold(more: Path) -> None:
    # The last checkpoint is the adapter that was exported; a bare model is the student's base.
    for name, same in (("rl_step_2", "rl"), ("model", "base")):
        one, other = result(more, name), result(more, same)
        assert {**one, "made_from": 0} == {**other, "made_from": 0}
    assert result(more, "rl_step_1")["distribution"] != result(more, "rl_step_2")["distribution"]
    text = (more / "report.md").read_text(encoding="utf-8")
    assert "student at step 1 of rl" in text and "model given" in text
    table = text.split("## Checkpoints of rl\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| 0", "| 1", "| 2"]
    assert (more / "report" / "rl_checkpoints.png").read_bytes().startswith(b"\x89PNG")


def test_files_have_the_names_that_others_read(finished: Path, more: Path) -> None:
    got = view(more, "rl")
    assert {
        "checkpoint_path", "teacher_model", "evaluation_time", "accuracy", "reasoning_quality",
        "distillation_effect", "statistics", "individual_results", "training",
    } <= got.keys()  # fmt: skip
    measured = result(more, "rl")
    assert got["accuracy"] == measured["greedy"]["accuracy"]["mean"]
    assert got["individual_results"] == measured["problems"] and len(measured["problems"]) == 4
    assert got["distillation_effect"] == measured["distribution"]
    assert got["checkpoint_path"] == str(more / "rl" / "adapter")
    assert got["training"]["steps"] == 2 and "reward" in got["training"]["metrics"]
    assert view(more, "rl_step_1")["training"]["steps"] == 1
    assert view(more, "sft")["training"] is None
    assert view(more, "teacher")["distillation_effect"] is None
    # Nothing of the machine stands in what results are compared by.
    assert str(more) not in json.dumps(measured) and "time" not in json.dumps(measured)
    stats = json.loads((finished / "rl" / "final_training_stats.json").read_text())
    assert stats["step"] == 2 and stats["steps"] == [1, 2] and stats["value_losses"] == []
    assert len(stats["total_rewards"]) == len(stats["intrinsic_rewards"]) == 2
    assert stats == json.loads((finished / "rl" / "training_stats.json").read_text())
    info = json.loads((finished / "rl" / "adapter" / "model_info.json").read_text())
    assert info["training_steps"] == 2 and info["final_reward"] == stats["total_rewards"][-1]
    assert info["model_type"] == "lora_rl" and info["config_summary"]["algorithm"] == "grpo"
    assert info["config_summary"]["trainable"] == "lora"
    assert info["config_summary"]["lora"] == {"rank": 4, "alpha": 8.0, "use_rslora": False}
    used = json.loads((finished / "rl" / "adapter" / "training_config.json").read_text())
    assert used == json.loads(json.dumps(Run(small(checkpoint__every=1), finished).config_dict))
    sft = json.loads((finished / "sft" / "adapter" / "model_info.json").read_text())
    assert sft["final_reward"] is None and sft["teacher_model"] is None


def test_a_checkpoint_that_is_not_kept_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoints=7 .*wanted: all, or one of 1, 2"):
        runner.run(only(evaluate__checkpoints="7"), finished)
    workdir = copy_stages(finished, tmp_path / "run", "pretrain")
    with pytest.raises(CheckpointError, match=r"checkpoints=all with 0 .*wanted: at least one"):
        runner.run(only(evaluate__checkpoints="all"), workdir)
    with pytest.raises(CheckpointError, match="no directory"):
        runner.run(only(evaluate__model=str(tmp_path / "nothing")), workdir)


def test_an_adapter_of_another_rank_beside_the_students_base(
    finished: Path, tmp_path: Path
) -> None:
    geometry = hf_io.load_config(plain(finished))
    lora, settings = peft_io.load_adapter(finished / "rl" / "adapter", geometry)
    # Twice the rank, the second half zero, twice alpha: the same function.
    wider = jax.tree_util.tree_map_with_path(
        lambda path, x: np.concatenate(
            [x, np.zeros_like(x)], axis=2 if path[-1].key == "lora_A" else 1
        ),
        jax.device_get(lora),
    )
    twice = type(settings)(rank=8, alpha=16.0, targets=settings.targets)
    peft_io.save_adapter(tmp_path / "wider", geometry, twice, wider, "x")
    workdir = copy_stages(finished, tmp_path / "run", *DONE)
    runner.run(only(evaluate__model=str(tmp_path / "wider"), evaluate__teacher=False), workdir)
    one, other = result(workdir, "model"), result(workdir, "rl")
    assert one["problems"] == other["problems"]
    for name, value in one["distribution"].items():
        if isinstance(value, dict):
            assert value["mean"] == pytest.approx(other["distribution"][name]["mean"], abs=1e-5)


def test_a_model_alone_with_a_tokenizer_of_its_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tokenizer(seed=5)
    model = write_model(tmp_path / "model", rows=320, tok=own, seed=3)
    (model / "chat_template.jinja").unlink()
    config = only(evaluate__model=str(model), evaluate__teacher=False, evaluate__distribution=False)
    runner.run(config, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(f"{model} has no chat template: prompts are ChatML") == 1
    assert not (tmp_path / "run" / "pretrain").exists()
    got = result(tmp_path / "run", "model")
    assert got["num_problems"] == 4 and got["distribution"] is None
    path = tmp_path / "run" / "evaluate" / "model.checkpoint.jsonl"
    answers = store.responses(store.read(path)[1], "greedy")
    assert max(max(answer) for (answer,) in answers) < len(own)
    read_back = own.decode(answers[0][0], skip_special_tokens=True)
    assert got["problems"][0]["greedy"] == read_back
    ours = Run(small(), finished).data.tokenizer
    with pytest.raises(ValueError, match="one tokenizer"):
        tokenizers.check_same_tokenizer(ours, own)  # else this test shows nothing


@pytest.mark.parametrize("refilled", [False, True])
def test_stopped_in_the_middle_it_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refilled: bool
) -> None:
    # Greedy in batches of two problems and one, sampled in batches of one: six draws a subject.
    # Asked to stop after four of the second subject.
    how = {"evaluate__batch": 2, "evaluate__problems": 3, "evaluate__distribution": False}
    drawn: list[tuple[float, int]] = []
    real, stream = Sampler.generate, Sampler.stream

    def counted(self: Sampler, weights: Any, prompts: Any, settings: Any, **rest: Any) -> Any:
        drawn.extend((settings.temperature, i) for i in dict.fromkeys(rest["prompt_ids"]))
        return real(self, weights, prompts, settings, **rest)

    def streamed(self: Sampler, weights: Any, parts: Any, settings: Any, **rest: Any) -> Any:
        assert refilled
        for part, out in zip(parts, stream(self, weights, parts, settings, **rest), strict=True):
            drawn.extend((settings.temperature, i) for i in part.prompt_ids)
            yield out

    monkeypatch.setattr(Sampler, "generate", counted)
    monkeypatch.setattr(Sampler, "stream", streamed)
    if refilled:
        monkeypatch.setattr(refill, "FROM", (2, 2))
        monkeypatch.setattr(Sampler, "generate", None)
    whole = copy_stages(finished, tmp_path / "whole", *DONE)
    runner.run(only(**how), whole)
    in_one_go, drawn[:] = list(drawn), []
    assert len(in_one_go) == 4 * 6

    cut = copy_stages(finished, tmp_path / "cut", *DONE)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "due", lambda self, step: len(drawn) == 6 + 4)
        with pytest.raises(Interrupted, match="base is not complete, 5 of 9 answers are"):
            runner.run(only(**how), cut)
    assert not (cut / "evaluate" / "base.json").exists()
    lines = (cut / "evaluate" / "base.checkpoint.jsonl").read_bytes()
    # Killed while it wrote the next line.
    (cut / "evaluate" / "base.checkpoint.jsonl").write_bytes(lines + b'{"decoding":"sa')
    runner.run(only(**how), cut)
    assert drawn == in_one_go
    for name in ("teacher", *STUDENTS):
        for file in (f"{name}.json", f"{name}.checkpoint.jsonl"):
            assert (cut / "evaluate" / file).read_bytes() == (
                whole / "evaluate" / file
            ).read_bytes()


def test_other_weights_begin_afresh(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = {"evaluate__teacher": False, "evaluate__distribution": False}
    workdir = copy_stages(finished, tmp_path / "run", *DONE, "evaluate")
    (workdir / "evaluate" / "rl.json").unlink()  # as if stopped before the end
    file = "adapter/adapter_model.safetensors"
    shutil.copy(workdir / "sft" / file, workdir / "rl" / file)
    runner.run(only(**how), workdir)
    assert "rl: other weights or prompts than before, restarted" in (capfd.readouterr().err)
    one, other = result(workdir, "rl"), result(workdir, "sft")
    assert one["problems"] == other["problems"] and one["made_from"] == other["made_from"]


def test_the_comparison_can_be_made_later(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE)
    runner.run(only(evaluate__distribution=False), workdir)
    assert result(workdir, "rl")["distribution"] is None
    assert "Comparison with the teacher" not in (workdir / "report.md").read_text(encoding="utf-8")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the answers are there")

    monkeypatch.setattr(Sampler, "generate", refuse)
    runner.run(only(), workdir)
    for name in ("teacher", *STUDENTS):
        before, after = (w / "evaluate" / f"{name}.json" for w in (finished, workdir))
        assert before.read_bytes() == after.read_bytes()


def test_greedy_alone(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE)
    runner.run(only(evaluate__samples=0), workdir)
    runner.run(only(evaluate__samples=0), workdir)  # and again, which finds them
    for name in ("teacher", *STUDENTS):
        one, whole = result(workdir, name), result(finished, name)
        assert one["sampled"] is None and one["greedy"] == whole["greedy"]
        assert one["greedy"]["flexible"]["problems"] == 4
    written = view(workdir, "rl")
    assert written["pass@1"] is None and written["accuracy"] == one["greedy"]["accuracy"]["mean"]
    assert written["flexible_accuracy"] == one["greedy"]["flexible"]
    figures = json.loads((workdir / "evaluate" / "done.json").read_text())["figures"]
    assert figures["rl"]["pass@1"] is None
    text = (workdir / "report.md").read_text(encoding="utf-8")
    assert "last number" in text and "Several samples" not in text


def test_agreement_by_batches_of_any_size(finished: Path) -> None:
    found = []
    for size in (8, 32):
        context = Run(only(evaluate__compare_batch=size, evaluate__problems=11), finished)
        student, teacher = context.load_student("rl"), context.models.load("teacher")
        data = held_out(context, stage(context).settings)
        rng = np.random.default_rng(0)
        answers = [rng.integers(3, context.data.vocab, n).tolist() for n in range(1, 12)]
        how = {"batch": size, "multiple": 16}
        found.append(distribution.compare(context, student, teacher, data.prompts, answers, **how))
    assert found[0]["tokens"] == found[1]["tokens"] == sum(range(1, 12))
    assert found[0]["responses"] == 11  # and not the 16 of two full batches
    for name in ("forward_kl", "reverse_kl", "jensen_shannon", "cosine", "top1_agreement"):
        for part in ("mean", "low", "high"):
            assert found[0][name][part] == pytest.approx(found[1][name][part], abs=1e-6)
    itself = distribution.compare(context, student, student, data.prompts, answers, **how)
    assert itself["forward_kl"]["mean"] == pytest.approx(0, abs=1e-6)
    assert itself["top1_agreement"]["mean"] == 1.0


def test_kept_answers_must_be_those_of_the_model(finished: Path, tmp_path: Path) -> None:
    context = Run(only(), finished)
    after = next(s for s in subjects.find(context, stage(context).settings) if s.name == "rl")
    data = held_out(context, stage(context).settings)
    answers = greedy_answers(context, stage(context), after, data)
    texts = [p["greedy"] for p in result(finished, "rl")["problems"]]
    assert [context.data.text(answer) for answer in answers] == texts
    other = Run(only(evaluate__temperature=0.5), finished)
    with pytest.raises(CheckpointError, match="greedy answers, of"):
        greedy_answers(other, stage(other), after, data)
    empty = Run(only(), tmp_path)
    with pytest.raises(CheckpointError, match="is missing"):
        greedy_answers(empty, stage(empty), after, data)


def disturb(file: Path, part: str) -> None:
    """Other values in the tensors whose names hold this part."""
    tensors = load_file(file)
    for name in (name for name in tensors if part in name):
        tensors[name] = tensors[name] + np.float32(0.3) * np.cos(
            np.arange(tensors[name].size)
        ).astype(np.float32).reshape(tensors[name].shape)
    save_file(tensors, file, metadata={"format": "pt"})


def test_another_teacher_is_compared_with_anew(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE, "evaluate")
    disturb(workdir / "pretrain" / "teacher" / "model" / "model.safetensors", "")
    runner.run(only(evaluate__teacher=False), workdir)
    for name in STUDENTS:
        before, after = result(finished, name), result(workdir, name)
        assert before["distribution"] != after["distribution"]
        assert before["compared_with"] != after["compared_with"]
        # Its answers owe nothing to the teacher: they stay.
        assert before["made_from"] == after["made_from"]
        assert before["problems"] == after["problems"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it is compared already")

    monkeypatch.setattr(distribution, "compare", refuse)
    runner.run(only(evaluate__teacher=False), workdir)


def test_weights_that_begin_alike_are_told_apart(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE)

    def found() -> dict[str, dict[str, str]]:
        run = Run(only(), workdir)
        return {s.name: s.weights for s in subjects.find(run, stage(run).settings)}

    before = found()
    for role in ("teacher", "student"):
        file = workdir / "pretrain" / role / "model" / "model.safetensors"
        head = file.read_bytes()[: 2**12]
        disturb(file, "layers.0.self_attn.v_proj.weight")
        assert file.read_bytes()[: 2**12] == head
    after = found()
    assert before.keys() == after.keys() == {"teacher", *STUDENTS}
    assert all(before[name] != after[name] for name in before)


def test_an_adapter_of_another_alpha_is_another_model(finished: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(finished / "rl" / "adapter", adapter)
    context = Run(only(), finished)
    before = subjects.given(context, str(adapter)).weights
    settings = json.loads((adapter / peft_io.CONFIG).read_text())
    settings["lora_alpha"] *= 3
    (adapter / peft_io.CONFIG).write_text(json.dumps(settings))
    assert subjects.given(context, str(adapter)).weights != before


def test_results_of_models_that_are_gone_do_not_stop_the_page(
    finished: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *DONE, "evaluate")
    shutil.rmtree(workdir / "rl")
    disturb(workdir / "sft" / "adapter" / "adapter_model.safetensors", "")
    runner.run(only(), workdir)
    tokens = json.loads((workdir / "report" / "tokens.json").read_text())
    assert set(tokens["made_from"]["subjects"]) == {"base", "sft", "teacher"}


def test_answers_to_other_prompts_or_golds_or_of_other_limits_are_not_those(finished: Path) -> None:
    context = Run(only(), finished)
    after = next(s for s in subjects.find(context, stage(context).settings) if s.name == "rl")
    data = held_out(context, stage(context).settings)
    assert len(greedy_answers(context, stage(context), after, data)) == len(data.prompts)
    longer = [[*data.prompts[0], 5], *data.prompts[1:]]
    other = [dataclasses.replace(data.problems[0], answer="-1"), *data.problems[1:]]
    for changed in (data._replace(prompts=longer), data._replace(problems=other)):
        with pytest.raises(CheckpointError, match="greedy answers, of"):
            greedy_answers(context, stage(context), after, changed)
    shorter = Run(only(sampling__max_new_tokens=16), finished)
    with pytest.raises(CheckpointError, match="greedy answers, of"):
        greedy_answers(shorter, stage(shorter), after, data)


def test_every_checkpoint_is_known_by_its_weights(finished: Path) -> None:
    context = Run(only(evaluate__checkpoints="all"), finished)
    found = {s.name: s.weights for s in subjects.find(context, stage(context).settings)}
    assert found["rl_step_1"] != found["rl_step_2"]


def test_a_model_of_other_tokens_is_not_compared_with_the_teacher(finished: Path) -> None:
    run = Run(only(), finished)
    settings = stage(run).settings
    after = next(s for s in subjects.find(run, settings) if s.name == "rl")
    assert evaluate.compared_with(run, settings, after) is not None
    other = dataclasses.replace(after, tokenizer=tokenizer(seed=5))
    assert evaluate.compared_with(run, settings, other) is None
    teacher = subjects.teacher(run)
    assert evaluate.compared_with(run, settings, teacher) is None
