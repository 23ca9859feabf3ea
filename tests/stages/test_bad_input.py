"""Wrong input is told before any work: no stage begins, the message says what to do."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import numpy

from distill_jax.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DistillError,
    MeshError,
    MissingExtraError,
    TokenizerMismatchError,
)
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner
from distill_jax.stages.kinds import KINDS
from tests.stages.hf import write_model, write_problems
from tests.stages.small import run_instead, small

pytestmark = pytest.mark.mesh

ALL = ("sft", "rl", "evaluate")


@pytest.fixture(autouse=True)
def no_stage_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any) -> None:
        raise AssertionError("a stage began")

    for kind in list(KINDS):
        run_instead(monkeypatch, kind, begun)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    write_model(root / "teacher", rows=384)
    shutil.copytree(root / "teacher", root / "student")
    cut_rows(root / "student", 320)
    write_problems(root / "data")
    return root


def cut_rows(model: Path, rows: int) -> None:
    """Leaves a model so many of its rows for tokens, without a compilation."""
    path = model / "model.safetensors"
    all_rows = json.loads((model / "config.json").read_text())["vocab_size"]
    weights = {n: w[:rows] if len(w) == all_rows else w for n, w in numpy.load_file(path).items()}
    numpy.save_file(weights, path, metadata={"format": "pt"})
    spoil(model / "config.json", vocab_size=rows)


@pytest.fixture(scope="module")
def made_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a run with embedded data begins with."""
    workdir = tmp_path_factory.mktemp("tokenizer")
    assert Run(small(), workdir).data.vocab
    return workdir / "tokenizer"


@pytest.fixture
def mine(sources: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(sources, tmp_path / "sources")
    return tmp_path / "sources"


def from_files(root: Path, **changes: Any) -> Any:
    paths = {"teacher__path": str(root / "teacher"), "student__path": str(root / "student")}
    return small(**{"stages": ALL, "data__source": str(root / "data"), **paths, **changes})


def fails(config: Any, workdir: Path, kind: type[DistillError], *parts: str) -> None:
    with pytest.raises(kind) as error:
        runner.run(config, workdir)
    for part in parts:
        assert part in str(error.value), str(error.value)
    assert not list(workdir.glob("*/run.json"))


def test_good_files_reach_the_stages(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a stage began"):
        runner.run(from_files(sources), tmp_path)


def test_a_workdir_that_cannot_be_written_to(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for workdir in (file, file / "below"):
        fails(from_files(sources), workdir, ConfigError, f"{file} is a file; wanted: a directory")
    fails(from_files(sources), Path("/proc/run"), ConfigError, "--workdir=/proc/run: ")
    # Root may write everywhere, so the answer is given here.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    fails(from_files(sources), tmp_path / "new" / "run", ConfigError, "no permission to write in")
    assert not (tmp_path / "new").exists()


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rl__minibatches": 3},
            "rl.prompts_per_step×samples_per_prompt=16 rows in minibatches×accumulate=3 parts; "
            "wanted: a multiple; fix: change prompts_per_step or samples_per_prompt",
        ),
        ({"rl__samples_per_prompt": 1}, "rl.samples_per_prompt=1 with algorithm=grpo"),
        ({"rl__ppo__clip_low": 0.1}, "rl.ppo.clip_low with algorithm=grpo"),
        ({"rl__algorithm": "ppo", "rl__group__beta": 0.1}, "rl.group.beta with algorithm=ppo"),
        ({"student__num_heads": 3}, "student.hidden_size=16 with num_heads=3"),
        ({"stages": ("rl", "sft")}, "wanted: sft before rl"),
        ({"sampling__temperature": 0.0}, "greedy completions of one prompt are all the same"),
        ({"rl__rewards__right": -1.0}, "rl.rewards.right=-1.0 with wrong=0.0"),
        ({"rl__rewards__overlong_buffer": 25}, "overlong_buffer=25 with sampling."),
        (
            {
                "rl__algorithm": "dapo",
                "rl__rewards__intrinsic_weight": 0.0,
                "rl__rewards__length_weight": 1.0,
                "rl__rewards__length__form": "lcpo_max",
                "rl__rewards__length__target": 25,
            },
            "rl.rewards.length.target=25 with sampling.max_new_tokens=24",
        ),
        ({"rl__rewards__length_weight": 1.0}, "rl.rewards.length_weight=1.0 with terms that pay"),
        # JAX keeps 32 bits of a seed: this one would silently give the run of seed 7.
        ({"seed": 2**32 + 7}, "seed=4294967303; wanted: at most 4294967295"),
        ({"rl__algorithm": "reinforce"}, "rl.algorithm='reinforce'; wanted: one of ppo, grpo"),
        ({"data__source": "gsm8k"}, "teacher.path is empty with data.source=gsm8k"),
        ({"student__path": "somewhere"}, "wanted: both paths or neither"),
        ({"lora__targets": ("w_proj",)}, "lora.targets=('w_proj',)"),
        ({"distill__lmbda": 1.0}, "distill.lmbda=1 with data=solutions; wanted: less than 1"),
        (
            {"distill__data": "student_samples"},
            "distill.loss.ce_weight=0.3 with data=student_samples",
        ),
        ({"distill__cache__megabytes": 1.0}, "distill.cache.megabytes=1.0 with loss.top_k=0"),
        ({"distill__loss__beta": 0.1}, "distill.loss.beta=0.1 with divergence=forward"),
        (
            {"stages": ("distill",), "distill__lmbda": 0.5, "sampling__temperature": 0.0},
            "sampling.temperature=0 in stage distill",
        ),
        (
            {
                "stages": ("distill",),
                "distill__eval_every": 0,
                "checkpoint__keep_best": "eval/accuracy",
            },
            "keep_best=eval/accuracy with distill.eval_every=0",
        ),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        small(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"checkpoint__keep_best": "eval/accuracy"},
            ConfigError,
            "keep_best=eval/accuracy with sft.eval_every=0",
        ),
        ({"sft__optimizer__warmup_steps": 2}, ConfigError, "sft.optimizer.warmup_steps=2 of 2"),
        ({"rl__optimizer__warmup_steps": 9}, ConfigError, "rl.optimizer.warmup_steps=9 of 2"),
        ({"student__steps": 1}, ConfigError, "pretrain.optimizer.warmup_steps=1 of 1 updates"),
        ({"sft__accumulate": 3}, ConfigError, "sft.batch_size=8 in accumulate=3 microbatches"),
        ({"mesh__data": 3}, MeshError, "on 8 devices; fix: set mesh.data"),
        ({"sft__batch_size": 12}, MeshError, "sft.batch_size=12 rows on a mesh with data×fsdp=8"),
        ({"pretrain__batch_size": 4}, MeshError, "wanted: a multiple of 8"),
        ({"sft__accumulate": 2}, MeshError, "sft.batch_size/2=4 rows"),
        ({"rl__minibatches": 4}, MeshError, "(rl.minibatches×rl.accumulate)=4 rows"),
        ({"rl__prompts_per_step": 3}, MeshError, "rl.prompts_per_step×rl.samples_per_prompt=12"),
        ({"rl__prompts_per_step": 80}, DataError, "64 training problems for rl.prompts_per_step"),
        ({"student__attention": "cudnn"}, ConfigError, "'cudnn' with compute_dtype float32"),
        ({"data__max_prompt_tokens": 3}, DataError, "prompts are longer than 3 tokens"),
        (
            {"data__on_long_prompt": "error", "data__max_prompt_tokens": 20},
            DataError,
            "set data.on_long_prompt=drop",
        ),
        (
            {"sampling__max_new_tokens": 2},
            DataError,
            "pretrain, teacher: all 64 training responses are longer than 2",
        ),
        (
            {"stages": ("pretrain", "distill"), "distill__loss__top_k": 999},
            ConfigError,
            "distill.loss.top_k=999; wanted: at most",
        ),
        (
            {"stages": ("pretrain", "distill"), "distill__optimizer__warmup_steps": 9},
            ConfigError,
            "distill.optimizer.warmup_steps=9 of 3",
        ),
        (
            {"stages": ("pretrain", "distill"), "distill__batch_size": 12},
            MeshError,
            "distill.batch_size=12 rows",
        ),
        (
            {
                "stages": ("pretrain", "distill"),
                "distill__data": "teacher_samples",
                "distill__teacher_samples__problems": 65,
            },
            DataError,
            "distill.teacher_samples.problems=65; wanted: at most the 64 training problems",
        ),
    ],
)
def test_settings_that_cannot_work_here(
    made_tokenizer: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[DistillError],
    message: str,
) -> None:
    shutil.copytree(made_tokenizer, tmp_path / "tokenizer")
    fails(small(**changes), tmp_path, kind, message)


def test_checks_of_a_stage_that_is_not_asked_for_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a stage began"):
        runner.run(small(stages=("pretrain",), rl__prompts_per_step=3), tmp_path)


@pytest.mark.parametrize("extra", ["tensorboard", "wandb"])
def test_missing_extras(tmp_path: Path, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX", "wandb": "wandb"}[extra], None)
    config = small(**{f"records__{extra}": True})
    fails(config, tmp_path, MissingExtraError, f"pip install -e '.[{extra}]'")


def test_pretrain_has_nothing_to_do(sources: Path) -> None:
    with pytest.raises(ConfigError, match=r"fix: start with configs/sft\.py"):
        from_files(sources, stages=("pretrain",))


# --- models -----------------------------------------------------------------------------------


def test_missing_model(mine: Path, tmp_path: Path) -> None:
    shutil.rmtree(mine / "teacher")
    fails(from_files(mine), tmp_path, CheckpointError, f"no directory {mine / 'teacher'}")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_truncated_weights(mine: Path, tmp_path: Path, role: str) -> None:
    path = mine / role / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    fails(from_files(mine), tmp_path, CheckpointError, str(path), "download or copy it again")


def test_missing_weights(mine: Path, tmp_path: Path) -> None:
    (mine / "student" / "model.safetensors").unlink()
    fails(from_files(mine), tmp_path, CheckpointError, f"no weights in {mine / 'student'}")


def spoil(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_wrong_architecture(mine: Path, tmp_path: Path) -> None:
    spoil(mine / "teacher" / "config.json", model_type="phi3", architectures=["Phi3ForCausalLM"])
    fails(from_files(mine), tmp_path, CheckpointError, "teacher", "phi3")


def test_weights_of_another_geometry(mine: Path, tmp_path: Path) -> None:
    spoil(mine / "teacher" / "config.json", intermediate_size=64)
    fails(from_files(mine), tmp_path, CheckpointError, "tensors in", "mlp.")


def test_teacher_is_not_looked_at_when_nobody_asks_it(mine: Path, tmp_path: Path) -> None:
    (mine / "teacher" / "model.safetensors").unlink()
    evaluate = {"evaluate__teacher": False, "evaluate__distribution": False}
    config = from_files(mine, rl__rewards__intrinsic_weight=0.0, **evaluate)
    with pytest.raises(AssertionError, match="a stage began"):
        runner.run(config, tmp_path)


def test_different_tokenizers(mine: Path, tmp_path: Path) -> None:
    train_tokenizer(["quite other words " * 50], 300).save_pretrained(mine / "teacher")
    fails(
        from_files(mine), tmp_path, TokenizerMismatchError, "to the teacher and", "to the student"
    )


def test_model_with_fewer_rows_than_tokens(mine: Path, tmp_path: Path) -> None:
    cut_rows(mine / "teacher", 256)
    fails(
        from_files(mine),
        tmp_path,
        ConfigError,
        "the model of teacher.path 256 embedding rows",
        "set teacher.path",
    )


def test_positions(sources: Path, tmp_path: Path) -> None:
    config = from_files(sources, sampling__max_new_tokens=65)
    fails(config, tmp_path, ConfigError, "take 129 positions; wanted: at most the", "128")


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{not json", ("train.jsonl, line 3", "not JSON")),
        ('{"question": "", "answer": "#### 3"}', ("train.jsonl, line 3", "field question")),
        ('{"question": "How many?"}', ("train.jsonl, line 3", "no gold answer")),
        ('{"question": "How many?", "answer": ["3"]}', ("train.jsonl, line 3", "field answer")),
        ('{"text": "How many?"}', ("train.jsonl, line 3", "columns text")),
    ],
)
def test_malformed_rows(mine: Path, tmp_path: Path, line: str, parts: tuple[str, ...]) -> None:
    path = mine / "data" / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    fails(from_files(mine), tmp_path, DataError, *parts)


def test_malformed_row_of_the_last_stage_is_found_first(mine: Path, tmp_path: Path) -> None:
    with (mine / "data" / "test.jsonl").open("a") as file:
        file.write("oops\n")
    fails(from_files(mine), tmp_path, DataError, "test.jsonl, line 7")


def test_a_refused_run_leaves_no_empty_directory(mine: Path, tmp_path: Path) -> None:
    path, workdir = mine / "data" / "train.jsonl", tmp_path / "run"
    path.write_text("oops\n" + path.read_text())
    for there in (False, True):  # a directory of the user's stays
        if there:
            workdir.mkdir()
        with pytest.raises(DataError, match="line 1: not JSON"):
            runner.run(from_files(mine), workdir)
        assert workdir.exists() is there


def test_a_model_without_chat_template_is_named(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = Run(from_files(mine), tmp_path / "a").data.tokenizer
    assert "chat template" not in capsys.readouterr().err
    model = Path(from_files(mine).student.path)
    (model / "chat_template.jinja").unlink()
    _ = Run(from_files(mine), tmp_path / "b").data.tokenizer
    said = " ".join(capsys.readouterr().err.split())
    assert f"{model} has no chat template: prompts are ChatML" in said


def test_empty_and_missing_data(mine: Path, tmp_path: Path) -> None:
    (mine / "data" / "train.jsonl").write_text("")
    fails(from_files(mine), tmp_path, DataError, "train.jsonl: no rows")
    config = from_files(mine, data__source=str(mine / "nowhere"))
    fails(config, tmp_path, DataError, "no such file or directory")


def test_held_out_problems_in_train(mine: Path, tmp_path: Path) -> None:
    first = (mine / "data" / "test.jsonl").read_text().splitlines()[0]
    with (mine / "data" / "train.jsonl").open("a") as file:
        file.write(first + "\n")
    fails(from_files(mine), tmp_path, DataError, "1 test problems are also in train")


def test_long_prompts_are_dropped_and_counted(mine: Path, tmp_path: Path) -> None:
    with (mine / "data" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"question": "long " * 80, "answer": "#### 3"}) + "\n")
    context = Run(from_files(mine), tmp_path)
    checks.prepare(context)
    assert context.data.dropped() == {"train": 1, "validation": 0, "test": 0}
    config = from_files(mine, data__on_long_prompt="error")
    fails(config, tmp_path, DataError, "wanted: at most max_prompt_tokens=64")


def test_a_models_directory_as_work_directory(sources: Path, tmp_path: Path) -> None:
    """A run would replace the model's config.json by its own."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen2"}')
    fails(from_files(sources), model, ConfigError, "is none of a run")
    assert (model / "config.json").read_text() == '{"model_type": "qwen2"}'
    assert [path.name for path in model.iterdir()] == ["config.json"]


def test_a_reward_function_that_is_not_there(sources: Path, tmp_path: Path) -> None:
    asked = from_files(sources, rl__rewards__custom="nowhere:reward")
    fails(asked, tmp_path / "run", ConfigError, "custom=nowhere:reward: ", "No module named")
