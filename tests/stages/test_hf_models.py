"""Students and teachers from Hugging Face directories, problems from local files."""

import json
from pathlib import Path

import pytest

from distill_jax.models import hf_io, peft_io
from distill_jax.run.run import Run
from distill_jax.stages import runner
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import rows, small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hf")
    teacher = write_model(
        root / "teacher", rows=384, seed=1, model_type="qwen3", qk_norm=True, qkv_bias=False
    )
    student = write_model(root / "student", rows=320, tie_embeddings=True)
    config = small(
        stages=("sft", "rl", "evaluate"),
        teacher__path=str(teacher),
        student__path=str(student),
        teacher__param_dtype="bfloat16",
        data__source=str(write_problems(root / "data")),
        rl__eval_every=2,
    )
    runner.run(config, root / "run")
    return root


def test_work_directory_holds_what_was_made_and_nothing_else(run: Path) -> None:
    names = {p.name for p in (run / "run").iterdir()}
    made = {"sft", "rl", "evaluate", "report", "report.md", "report.html"}
    assert names == made | {"config.json", "view.json", "digests.json"}
    assert {p.name for p in (run / "run" / "rl").iterdir()} == {
        "adapter", "checkpoints", "completions.jsonl", "done.json", "final_training_stats.json",
        "first_rollout.json", "metrics.jsonl", "run.json", "settings.json", "training_stats.json",
    }  # fmt: skip


def test_adapters_belong_to_the_student(run: Path) -> None:
    geometry = hf_io.load_config(run / "student")
    for stage in ("sft", "rl"):
        adapter = run / "run" / stage / "adapter"
        peft_io.load_adapter(adapter, geometry)
        about = json.loads((adapter / "adapter_config.json").read_text())
        assert about["base_model_name_or_path"] == str(run / "student")


def test_vocabularies_of_different_size_score_the_same_tokens(run: Path) -> None:
    found = rows(run / "run", "rl")
    assert [row["step"] for row in found] == [0, 1, 2]
    assert all(row["rewards/intrinsic/mean"] < 0 for row in found[1:])
    report = (run / "run" / "report.md").read_text(encoding="utf-8")
    assert "6 held-out problems" in report or "4 held-out problems" in report


def test_an_adapter_names_the_hub_id_that_was_given(run: Path, tmp_path: Path) -> None:
    # Not the folder of this machine's cache: the adapter is to load elsewhere, too.
    paths = {"teacher__path": "Qwen/Teacher", "student__path": "Qwen/Some-Model"}
    context = Run(small(stages=("sft", "rl"), **paths), tmp_path)
    context.data.__dict__["tokenizer"] = tokenizer()
    geometry = hf_io.load_config(run / "student")
    lora, _ = peft_io.load_adapter(run / "run" / "sft" / "adapter", geometry)
    context.models.save_adapter(geometry, lora, tmp_path / "adapter")
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == "Qwen/Some-Model"
