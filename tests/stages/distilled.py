"""Stage distill in each of its ways, run once for all tests that look at them."""

from pathlib import Path
from typing import Any

from distill_jax.stages import runner
from tests.stages.small import copy_stages, small

# Every way of the data, the divergence, the parameters, the start, and stored scores.
WAYS: dict[str, dict[str, Any]] = {
    "solutions": {"accumulate": 1},
    "teacher": {
        "data": "teacher_samples",
        "start": "sft",
        "trainable": "full",
        "loss__divergence": "jsd",
        "loss__top_k": 8,
    },
    "student": {
        "data": "student_samples",
        "start": "sft",
        "loss__divergence": "reverse",
        "loss__temperature": 1.0,
        "loss__ce_weight": 0.0,
    },
    "mixed": {"steps": 6, "lmbda": 0.5, "data": "teacher_samples", "eval_every": 3},
}


def way(name: str, **changes: Any) -> Any:
    settings = {f"distill__{key}": value for key, value in WAYS[name].items()}
    return small(stages=("distill",), **{**settings, **changes})


class Trained(dict[str, Path]):
    """A work directory of each way, run to its end when it is first asked for."""

    def __init__(self, finished: Path, where: Path):
        super().__init__()
        self.finished, self.where = finished, where

    def __missing__(self, name: str) -> Path:
        workdir = copy_stages(self.finished, self.where / name, "pretrain", "sft")
        runner.run(way(name), workdir)
        self[name] = workdir
        return workdir
