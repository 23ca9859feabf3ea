"""Stage distill in each of its ways, run once for all tests that look at them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.run.run import Run
from distill_jax.stages import curricula, distill, distill_rows, runner
from distill_jax.stages.distill_step import DistillStep
from distill_jax.training import optimizer
from distill_jax.training import state as states
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


def first_step(workdir: Path, config: Any, mesh: Any) -> tuple[DistillStep, Any]:
    """The step, ready, and its first state, on the first devices as a mesh of this shape."""
    ctx = Run(config, workdir)
    ctx.mesh = sharding.make_mesh(sharding.MeshSettings(*mesh), jax.devices()[: int(np.prod(mesh))])
    ctx.models.mesh = ctx.mesh
    stage = ctx.stage("distill")
    s, given = stage.settings, distill.KIND.prepare(ctx, stage)
    teacher = ctx.models.load("teacher")
    found = distill_rows.make(ctx, stage, workdir / "distill", teacher, given)
    student, trainable, frozen = distill.starting_student(ctx, s)
    tx = optimizer.make(s.optimizer, 3)
    curriculum = curricula.of(ctx, stage, s.curriculum, found.problems, batch=s.prompts)
    state, shardings = states.create(
        trainable, tx, ctx.key(stage), ctx.mesh, curriculum_state=curriculum.fresh()
    )
    step = DistillStep(ctx, stage, student, frozen, teacher, found, curriculum, tx, shardings)
    return step, state


def one_update(workdir: Path, config: Any, mesh: Any) -> tuple[Any, dict[str, Any]]:
    """Trainable arrays and optimizer state after it, and its metrics."""
    step, state = first_step(workdir, config, mesh)
    state, metrics, _ = step(state, 0)
    step.close()
    return sharding.fetch({"of": state.trainable, "opt": state.opt_state}), {
        name: float(value) for name, value in metrics.items()
    }
