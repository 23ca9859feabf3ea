"""Runs one step of gpu_run.sh in a separate process and appends its figures to $OUT/gpu.jsonl.

python -m launch.bench.gpu --config=configs/bench.py:gpu_run --step=generate
"""

import dataclasses
import shutil
import subprocess
from collections.abc import Callable

import jax
from absl import flags
from ml_collections import config_flags

from distill_jax.core.settings import build
from distill_jax.training.manifest import describe_run
from launch import arguments
from launch.bench import roofline
from launch.bench.gpu import attention, decoding, parity, peers, updates
from launch.bench.gpu.figures import figures
from launch.bench.gpu.lines import note
from launch.bench.steps import Bench, BenchSettings

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/bench.py[:preset]")
_CARD = "name,driver_version,memory.total,clocks.sm,clocks.mem"


def env(settings: BenchSettings, arm: str) -> None:
    """Notes versions, device, commit and the card's clocks; the imports above are the test."""
    card = None
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={_CARD}", "--format=csv,noheader"]
        card = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    note(arm=arm, card=card, settings=dataclasses.asdict(settings), **describe_run())


def forward(settings: BenchSettings, arm: str) -> None:
    """Scoring of every token, as by the teacher; on a GPU also with cuDNN's attention."""
    cudnn = [("cudnn", f"{arm}, attention cudnn")] if jax.default_backend() == "gpu" else []
    for attention_impl, name in ((settings.attention, arm), *cudnn):
        bench = Bench(dataclasses.replace(settings, attention=attention_impl))
        bench.forward()
        figures(bench, name)


def generate(settings: BenchSettings, arm: str) -> None:
    """Prefill and decoding, each number of rows."""
    bench = Bench(settings)
    for rows in settings.generate_rows:
        bench.generate(rows)
        figures(bench, arm)


def grpo(settings: BenchSettings, arm: str) -> None:
    """A GRPO step: its draw, the teacher's scores, its update; prompts once for their samples."""
    bench = Bench(settings)
    bench.rl()
    figures(bench, arm)


STEPS: dict[str, Callable[[BenchSettings, str], None]] = {
    "env": env,
    "parity": parity.parity,
    "forward": forward,
    "generate": generate,
    "update": updates.updates,
    "grpo": grpo,
    "transformers": peers.transformers,
    "segment": decoding.segment,
    "segment_odd_vocabulary": decoding.odd_vocabulary,
    "attention": attention.attention,
    "profile": decoding.profile,
}
_STEP = flags.DEFINE_enum("step", None, list(STEPS), "What to measure.", required=True)
_ARM = flags.DEFINE_string("arm", "", "Name of the figures' lines; empty: the step's.")


def of_device(settings: BenchSettings, name: str) -> BenchSettings:
    """The settings with the peaks of a device of this name, where they are known."""
    known = roofline.peaks(name)
    if known is None:
        return settings
    return dataclasses.replace(settings, peak_flops=known[0], peak_bandwidth=known[1])


def _job(guard: arguments.OneLine) -> None:
    del guard
    settings, step = build(BenchSettings, _CONFIG.value), _STEP.value
    if step != "transformers":  # a process of torch: jax would take the card's memory
        settings = of_device(settings, jax.devices()[0].device_kind)
    STEPS[step](settings, _ARM.value or step)


if __name__ == "__main__":
    arguments.run_app(_job, "configs/bench.py:gpu_run")
