"""A LoRA step in several ways: scanned or unrolled layers, attention, recomputing, microbatches."""

import dataclasses
from typing import Any

import jax

from distill_jax.models.head import chunks
from launch.bench.gpu.figures import figures
from launch.bench.gpu.lines import note
from launch.bench.steps import Bench, BenchSettings

CHUNKS = "chunk_elements"
# As the runs' presets are; unrolled layers, which compile many times longer, come last.
AS_RUN: dict[str, Any] = {"unroll": False, "remat": True, "accumulate": 4}
ARMS: dict[str, dict[str, Any]] = {
    "scan": {},
    "scan, attention cudnn": {"attention": "cudnn"},
    "scan, attention xla": {"attention": "xla"},
    "scan, no remat": {"remat": False},
    "scan, no remat, 1 microbatch": {"remat": False, "accumulate": 1},
    "scan, head in fourfold chunks": {CHUNKS: 2**28},
    "unrolled": {"unroll": True},
}


def updates(settings: BenchSettings, arm: str) -> None:
    """Measures each arm; one that does not fit the memory, or fails otherwise, is noted.

    Raises:
        SystemExit: one failed.
    """
    failed, usual = [], chunks.CHUNK_ELEMENTS
    for name, change in ARMS.items():
        changes = {**AS_RUN, **change}
        if changes.get("attention") == "cudnn" and jax.default_backend() != "gpu":
            continue
        chunks.CHUNK_ELEMENTS = changes.pop(CHUNKS, usual)
        jax.clear_caches()  # an equal model's update is traced once, with the chunks of then
        try:
            bench = Bench(dataclasses.replace(settings, **changes))
            bench.sft("lora")
        except (RuntimeError, ValueError) as error:  # XLA's are RuntimeErrors
            failed.append(name)
            note(arm=f"{arm}: {name}", error=str(error)[:300])
            continue
        figures(bench, f"{arm}: {name}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
