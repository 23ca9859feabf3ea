"""Measures steps of training and sampling on random non-zero weights; prints a table and one line.

python -m launch.bench --config=configs/bench.py            # the shape of third_party/peers
python -m launch.bench --config=configs/bench.py:gpu_1_5b   # Qwen2.5 1.5B on a GPU
"""

import json
import resource
from typing import Any

import jax
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from distill_jax.core.host_memory import return_freed_memory_unless_cpu
from distill_jax.core.settings import build
from distill_jax.training.manifest import describe_run
from launch import arguments
from launch.bench import distill, draws, programs, scoring
from launch.bench.steps import Bench, BenchSettings

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/bench.py[:preset]")


def peak_memory() -> dict[str, int]:
    """Peak bytes: of the device where it counts them, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"device_bytes": int(stats["peak_bytes_in_use"])}
    # Linux counts in KiB.
    return {"process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def run(settings: BenchSettings) -> dict[str, Any]:
    """All figures of a preset."""
    bench = Bench(settings)
    bench.forward()
    for rows in settings.generate_rows:
        bench.generate(rows)
    bench.sft("lora")
    bench.rl()
    programs.programs(bench)
    scoring.scoring(bench)
    distill.distill(bench)
    draws.draws(bench)
    if settings.full:
        bench.sft("full")
    found = {"model": settings.model, "figures": bench.figures, "peak_memory": peak_memory()}
    return {**found, **describe_run()}


def table(result: dict[str, Any]) -> Table:
    """The figures for people."""
    out = Table(title=f"{result['model']}: median \\[min, max] over repetitions", padding=0)
    names = [name.removesuffix("_s") for name in result["figures"]]
    out.add_column("figure", min_width=max(map(len, names)))
    for name in ("seconds", "first, s", "a second", "of peak", "of step", "temp, MB"):
        out.add_column(name, justify="right")
    for name, figure in zip(names, result["figures"].values(), strict=True):
        share = figure.get("mfu", figure.get("roofline_fraction"))
        out.add_row(
            name,
            f"{figure['median']:.4f} \\[{figure['min']:.4f}, {figure['max']:.4f}]",
            f"{figure['first_call_s']:.2f}" if "first_call_s" in figure else "–",
            _speed(figure),
            f"{100 * share:.1f}%" if share is not None else "–",
            f"{100 * figure['share_of_step']:.1f}%" if "share_of_step" in figure else "–",
            f"{figure['temp_bytes'] / 1e6:,.0f}" if "temp_bytes" in figure else "–",
        )
    return out


def _speed(figure: dict[str, Any]) -> str:
    for what in ("tokens", "steps"):
        if f"{what}_per_s" in figure:
            return f"{figure[f'{what}_per_s']:,.0f} {what}"
    return "–"


def _job(guard: arguments.OneLine) -> None:
    del guard
    return_freed_memory_unless_cpu()
    result = run(build(BenchSettings, _CONFIG.value))
    Console(stderr=True).print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    arguments.run_app(_job, "configs/bench.py")
