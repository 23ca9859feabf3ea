"""Notes what a benchmark has measured, with the device's memory."""

import jax

from launch.bench.gpu.lines import note
from launch.bench.steps import Bench


def figures(bench: Bench, arm: str) -> None:
    """Notes the figures of a benchmark and forgets them.

    `peak_bytes` is the device's, of the process so far; null where it is not counted.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    for name, figure in bench.figures.items():
        note(
            arm=arm,
            figure=name.removesuffix("_s"),
            peak_bytes=stats.get("peak_bytes_in_use"),
            **figure,
        )
    bench.figures.clear()
