"""Where stage rl starts: base, a stage, a directory, an adapter or a whole model."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError
from distill_jax.models import hf_io, peft_io
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner
from tests.stages.distilled import WAYS, Trained
from tests.stages.hf import write_model, write_problems
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow

# Updates too small for float32: what is exported is what the stage started from.
STILL = {
    "stages": ("rl",),
    "rl__optimizer__learning_rate": 1e-30,
    "rl__eval_every": 0,
    "rl__rewards__intrinsic_weight": 0.0,
}


def lora_of(directory: Path, base: Path) -> Any:
    return jax.device_get(peft_io.load_adapter(directory, hf_io.load_config(base))[0])


def base_named(adapter: Path) -> str:
    return json.loads((adapter / peft_io.CONFIG).read_text())["base_model_name_or_path"]


def same(one: Any, other: Any) -> bool:
    """Equal up to what updates of 1e-30 add to a weight that is 0."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.allclose(a, b, rtol=0, atol=1e-25) for a, b in pairs)


# --- adapters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["base", "sft", "adapter", "stage's directory"])
def test_rl_starts_where_it_is_told(finished: Path, tmp_path: Path, start: str) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")
    shutil.copytree(finished / "rl", tmp_path / "other")  # an adapter that no stage made here
    places = {"adapter": "other/adapter", "stage's directory": "other"}
    reference = str(tmp_path / places[start]) if start in places else start
    config = small(**STILL, rl__start=reference)
    runner.run(config, workdir)

    student = workdir / "pretrain" / "student" / "model"
    got = lora_of(workdir / "rl" / "adapter", student)
    known = {
        "base": jax.device_get(Run(config, workdir).load_student("base").params["lora"]),
        "sft": lora_of(finished / "sft" / "adapter", student),
        "other": lora_of(finished / "rl" / "adapter", student),
    }
    wanted = "other" if start in places else start
    assert [name for name, lora in known.items() if same(got, lora)] == [wanted]
    assert base_named(workdir / "rl" / "adapter") == str(student)
    # The record names the start and what of it is read.
    done = json.loads((workdir / "rl" / "done.json").read_text())
    assert done["own"]["start"] == reference
    names = {name for name in done["inputs"] if name.startswith("start")}
    assert (
        names
        == {
            "base": {"start base (student)"},
            "sft": {"start (adapter of sft)"},
            "other": {f"start {reference} (adapter)", f"start {reference} (student)"},
        }[wanted]
    )
    # It is complete: the start may go.
    assert done["base"] is None
    for gone in (tmp_path / "other", workdir / "sft"):
        shutil.rmtree(gone)
    runner.run(config, workdir)
    run = Run(config, workdir)
    assert run.students() == ["rl"] and run.student("rl").adapter is not None


def test_the_start_without_its_adapter_is_an_error_that_names_the_fix(tmp_path: Path) -> None:
    paths = dict.fromkeys(
        ("teacher__path", "student__path"), str(write_model(tmp_path / "model", rows=320))
    )
    paths["data__source"] = str(write_problems(tmp_path / "data"))
    workdir = tmp_path / "run"
    with pytest.raises(CheckpointError) as error:
        runner.run(small(**STILL, **paths), workdir)
    assert f"no student in {workdir / 'sft'}; fix: run stage sft first" in str(error.value)
    assert f"--config.stages=sft, --workdir={workdir}" in str(error.value)
    assert not (workdir / "rl").exists()
    checks.prepare(Run(small(**STILL, **paths, rl__start="base"), workdir))


def test_a_directory_that_cannot_be_the_start(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", "pretrain", "sft")

    def fails(start: Path, message: str, **changes: Any) -> None:
        with pytest.raises(CheckpointError, match=message):
            runner.run(small(**STILL, rl__start=str(start), **changes), workdir)
        assert not (workdir / "rl").exists()

    fails(tmp_path / "nowhere", "no directory")
    fails(workdir / "tokenizer", r"holds no model; wanted: base, a stage of the plan \(pretrain, ")
    # Another rank than the settings': told before any work.
    adapter = finished / "rl" / "adapter"
    fails(adapter, "fix: set lora.rank, lora.alpha, lora.use_rslora and lora.targets", lora__rank=8)


# --- whole models -----------------------------------------------------------------------------


def after_whole(start: str, **changes: Any) -> RunConfig:
    distill = {f"distill__{name}": value for name, value in WAYS["teacher"].items()}
    return small(**{**STILL, **distill, "rl__start": start, **changes})


@pytest.fixture(scope="module")
def on_whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage rl on the whole model that stage distill made."""
    root = tmp_path_factory.mktemp("whole")
    workdir = copy_stages(trained["teacher"], root / "run", "pretrain", "sft", "distill")
    runner.run(after_whole("distill", checkpoint__every=1), workdir)
    return workdir


def test_rl_on_a_whole_model_exports_an_adapter_of_it(on_whole: Path) -> None:
    model = on_whole / "distill" / "model"
    adapter = on_whole / "rl" / "adapter"
    assert base_named(adapter) == str(model)
    assert json.loads((on_whole / "rl" / "done.json").read_text())["base"] == "distill/model"
    info = json.loads((adapter / "model_info.json").read_text())
    assert info["base_model"] == str(model) and info["start"] == "distill"
    run = Run(after_whole("distill"), on_whole)
    fresh = jax.device_get(run.load_student("base").params["lora"])
    assert same(lora_of(adapter, model), fresh)
    _, base = hf_io.load_hf(model)
    held = jax.device_get(run.load_student("rl").params["base"])
    jax.tree.map(np.testing.assert_array_equal, held, jax.device_get(base))


@pytest.mark.parametrize("place", ["distill", "distill/model"])
def test_its_directory_is_the_same_start(on_whole: Path, tmp_path: Path, place: str) -> None:
    workdir = copy_stages(on_whole, tmp_path / "run", "pretrain")
    runner.run(after_whole(str(on_whole / place)), workdir)
    assert weights(workdir, "rl") == weights(on_whole, "rl")
    drawn = [rows(w, "rl", "completions.jsonl") for w in (workdir, on_whole)]
    assert drawn[0] == drawn[1]
    assert base_named(workdir / "rl" / "adapter") == str(on_whole / "distill" / "model")


def test_it_draws_from_that_model_and_is_evaluated_on_it(on_whole: Path, tmp_path: Path) -> None:
    workdir = copy_stages(on_whole, tmp_path / "run", "pretrain", "sft", "distill", "rl")
    how = {"evaluate__teacher": False, "evaluate__distribution": False, "report__problems": 0}
    config = after_whole("distill", evaluate__checkpoints="all", **how)
    runner.run(dataclasses.replace(config, stages=("evaluate",)), workdir)

    def result(name: str) -> dict[str, Any]:
        return json.loads((workdir / "evaluate" / f"{name}.json").read_text())

    answers = {name: result(name)["problems"] for name in ("base", "sft", "distill", "rl")}
    assert answers["rl"] == answers["distill"] != answers["base"]
    assert result("rl_step_1")["problems"] == result("rl_step_2")["problems"] == answers["rl"]
    wanted = result("distill")["made_from"]["student"]
    for name in ("rl", "rl_step_1", "rl_step_2"):
        assert result(name)["made_from"]["student"] == wanted
    assert result("base")["made_from"]["student"] != wanted
    # A rollout of the bare student is another one.
    plain = copy_stages(on_whole, tmp_path / "plain", "pretrain")
    runner.run(small(**STILL, rl__start="base"), plain)
    texts = [
        [row["completion"] for row in rows(w, "rl", "completions.jsonl") if row["step"] == 1]
        for w in (plain, on_whole)
    ]
    assert texts[0] != texts[1]
