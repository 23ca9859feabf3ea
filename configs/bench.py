"""python -m launch.bench --config=configs/bench.py

Presets: cpu (default; the shape of third_party/peers), gpu_1_5b, gpu_7b, smoke (seconds);
gpu_run and gpu_run_smoke of launch/bench/gpu_run.sh.
"""

import dataclasses
from typing import Any

import ml_collections

from configs.presets import PRESETS as RUNS
from distill_jax.core.settings import to_config_dict
from distill_jax.stages.rl_settings import RLSettings
from launch.bench.steps import BenchSettings


def _as_run(preset: str) -> dict[str, Any]:
    """What the updates of a run of this preset compute with; layers as on one GPU."""
    run = RUNS[preset]()
    student, rl = run.student, run.plan["rl"]
    assert isinstance(rl, RLSettings) and student.unroll is None
    return {
        "dtype": student.compute_dtype,
        "attention": student.attention,
        "remat": student.remat,
        "unroll": not student.remat,
        "lora_rank": run.lora.rank,
        "accumulate": rl.accumulate,
    }


_GPU = BenchSettings(
    model="qwen2_5_1_5b",
    **_as_run("qwen_1_5b"),
    sft_rows=32,
    sft_tokens=512,
    full=False,
    prompts=16,
    samples=8,
    prompt_tokens=192,
    completion_tokens=256,
    generate_rows=(1, 64, 256),
    score_rows=64,
    score_steps=8,
    score_step_tokens=32,
    distill_tokens=8192,
    distill_width=1536,
    repeats=5,
    warmup=1,
    # One H200: 790 TFLOP/s of bf16 products as measured, 4.3 TB/s.
    peak_flops=790e12,
    peak_bandwidth=4.3e12,
)

_SMOKE = BenchSettings(
    repeats=2, warmup=1, sft_rows=4, sft_tokens=16, prompts=2, samples=2, prompt_tokens=8,
    completion_tokens=8, generate_rows=(4,), distill_tokens=256, distill_width=8,
    distill_vocab=4096, draw_rows=2, score_rows=2,
    score_steps=2, score_step_tokens=4, unroll=False,
)  # fmt: skip

PRESETS = {
    "cpu": BenchSettings(),
    "smoke": _SMOKE,
    "gpu_1_5b": _GPU,
    "gpu_7b": dataclasses.replace(_GPU, model="qwen2_5_7b", **_as_run("qwen_7b"), sft_rows=16),
    # The peaks are those of the card that it runs on (launch/bench/roofline.py).
    "gpu_run": dataclasses.replace(_GPU, generate_rows=(64, 256), repeats=3),
    # With peaks that no device has: a rehearsal must reach the fractions, too.
    "gpu_run_smoke": dataclasses.replace(_SMOKE, segment=4, peak_flops=1e12, peak_bandwidth=1e11),
}


def get_config(preset: str = "cpu") -> ml_collections.ConfigDict:
    """Settings of a preset."""
    return to_config_dict(PRESETS[preset])
