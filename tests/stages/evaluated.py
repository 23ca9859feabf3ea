"""An evaluation of the small run by itself: its settings, its stage, its results."""

import json
from pathlib import Path
from typing import Any

from distill_jax.run.run import Run
from tests.stages.small import small

DONE = ("pretrain", "sft", "rl")


def only(**changes: Any) -> Any:
    return small(stages=("evaluate",), **changes)


def stage(run: Run) -> Any:
    return run.stage("evaluate")


def result(workdir: Path, name: str) -> dict[str, Any]:
    return json.loads((workdir / "evaluate" / f"{name}.json").read_text())
