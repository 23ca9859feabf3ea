"""The benchmark runs through and prints what it says; the hardware's bounds by hand."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import AbstractMesh

from configs import bench as configs
from configs import presets
from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError, MeshError
from distill_jax.core.settings import build
from distill_jax.forecast import flops
from distill_jax.models.released import PRESETS
from distill_jax.run.models import unrolled
from launch import arguments
from launch.bench import distill, roofline
from launch.bench.steps import Bench, BenchSettings, geometry
from tests.models.parameters import parameter_count
from third_party.peers import shapes

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


# The command twice: first in a fork, with a wrong setting, then in the process itself.
TWICE = """
import os, runpy, sys
from launch import arguments
from launch.bench import distill, steps
sys.argv = ["bench", "--config=configs/bench.py:smoke"]
child = os.fork()
if not child:
    sys.argv.append("--config.reepats=3")
else:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    print("---", file=sys.stderr, flush=True)
runpy.run_module("launch.bench", run_name="__main__", alter_sys=True)
"""


def test_smoke_prints_one_line_of_positive_figures():
    """Wrong input ends in one line, before any work."""
    command = [sys.executable, "-c", TWICE]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    wrong, _, table = out.stderr.partition("---\n")
    assert "did you mean repeats?" in wrong and len(wrong.strip().splitlines()) == 1
    assert "grpo_update" in table
    result = json.loads(out.stdout)
    figures = result["figures"]
    assert set(figures) == {
        "teacher_forward_s", "generate_4_s", "lora_step_s", "full_step_s",
        "grpo_rollout_s", "grpo_teacher_s", "grpo_update_s", "grpo_step_s", "grpo_grading_s",
        "score_at_once_s", "score_by_step_s", "distill_chunked_s", "distill_naive_s",
        "draw_s", "draw_top_k_s", "draw_top_p_s",
    }  # fmt: skip
    for figure in figures.values():
        assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert figure["n"] == 2
    assert 0 <= figures["grpo_grading_s"]["share_of_step"] < 1
    # Compilation is part of the first call and of no other.
    assert figures["lora_step_s"]["first_call_s"] > figures["lora_step_s"]["max"]
    rows, tokens = 4, 8
    speed = rows * tokens / figures["generate_4_s"]["median"]
    assert figures["generate_4_s"]["tokens_per_s"] == pytest.approx(speed)
    score = figures["score_at_once_s"]  # two candidates of two steps
    assert score["steps_per_s"] == pytest.approx(2 * 2 / score["median"])
    assert figures["distill_naive_s"]["temp_bytes"] >= 2 * 4 * 256 * 4096
    assert result["peak_memory"]["process_bytes"] > 10**8
    assert result["versions"]["jax"]


def test_the_chunked_loss_never_holds_all_logits():
    """Compiled and not run, with the vocabulary of released models."""

    class Unmeasured:
        settings = BenchSettings(distill_tokens=256, distill_width=8)
        figures: dict[str, dict[str, int]] = {}

        def measure(self, name: str, *_: object) -> None:
            self.figures[name] = {}

    distill.distill(bench := Unmeasured())
    chunked, naive = (
        bench.figures[f"distill_{way}_s"]["temp_bytes"] for way in ("chunked", "naive")
    )
    # The plain formula holds [N, V] of both models.
    assert naive >= 2 * 4 * 256 * 151_936 and naive > 2 * chunked


def test_rows_that_do_not_fit_the_devices_are_told_before_any_work():
    # Eight devices here.
    with pytest.raises(MeshError, match="sft_rows"):
        Bench(dataclasses.replace(BenchSettings(), sft_rows=12))


def test_the_small_shape_is_that_of_the_peers():
    config = geometry("small")
    assert parameter_count(config) == shapes.BASE_PARAMETERS
    default = BenchSettings()
    assert default.lora_rank == shapes.LORA_RANK
    assert (default.prompts, default.samples) == (shapes.NUM_PROMPTS, shapes.NUM_SAMPLES)
    assert default.prompt_tokens == shapes.PROMPT_TOKENS
    assert default.completion_tokens == shapes.COMPLETION_TOKENS
    assert (default.sft_rows, default.sft_tokens) == (shapes.SFT_ROWS, shapes.SFT_TOKENS)
    assert default.generate_rows == (shapes.GENERATE_ROWS,)


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_build(preset):
    settings = build(BenchSettings, configs.get_config(preset))
    assert settings == configs.PRESETS[preset]
    assert geometry(settings.model).num_layers > 0


@pytest.mark.parametrize(("bench", "run"), [("gpu_1_5b", "qwen_1_5b"), ("gpu_7b", "qwen_7b")])
def test_presets_compute_as_those_of_runs(bench: str, run: str) -> None:
    mine, whole = configs.PRESETS[bench], presets.PRESETS[run]()
    student, rl = whole.student, whole.plan["rl"]
    model = str(student.path).lower().replace("-math", "").replace("-", "_").replace(".", "_")
    assert model.endswith(mine.model)
    assert (mine.dtype, mine.attention) == (student.compute_dtype, student.attention)
    assert (mine.remat, mine.accumulate) == (student.remat, rl.accumulate)
    assert mine.lora_rank == whole.lora.rank
    # An abstract mesh counts as one of GPUs: of one, and of eight under fsdp.
    fsdp = {"gpu_1_5b": 1, "gpu_7b": 8}[bench]
    mesh = AbstractMesh((1, fsdp, 1), sharding.AXES)
    assert mine.unroll == unrolled(student, mesh)


def test_decode_bound_of_a_released_model():
    # Batch 1, no context to speak of: bandwidth over 2 bytes a weight (7B: 7.07e9 of them that
    # are multiplied, the embedding is only looked up).
    config = PRESETS["qwen2_5_7b"]
    bound = roofline.decode_tokens_per_s(config, 1, 0, 0, "bfloat16", 4.3e12)
    assert bound == pytest.approx(4.3e12 / (2 * 7.07e9), rel=0.01)
    # A cache costs: 28 layers, 4 kv heads of 128, keys and values, 2 bytes: 57,344 a position.
    longer = roofline.decode_tokens_per_s(config, 64, 320, 0, "bfloat16", 4.3e12)
    weights = 2 * (flops.layer_parameters(config) + flops.head_parameters(config))
    assert longer == pytest.approx(64 * 4.3e12 / (weights + 64 * 320 * 57_344))


def test_an_unknown_preset_is_told():
    with pytest.raises(ConfigError, match=r"preset 'gpu' of .*configs/bench.py; wanted: "):
        arguments.check([f"--config={ROOT / 'configs' / 'bench.py'}:gpu"], "")
