"""The program of packed rows is lowered for the arrays that packing makes."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from configs import presets
from distill_jax.core import sharding
from distill_jax.data import packing
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.stages.dry_run import job

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_its_batch_is_that_of_packed_examples(stage: str) -> None:
    config = presets.smoke()  # rows of 64 + 16 tokens at most, batches of 8
    mesh = sharding.make_mesh(sharding.MeshSettings(1, 1, 1), jax.devices()[:1])
    shapes = job(config, mesh).geometries
    settings: Any = dataclasses.replace(config.plan[stage], packing=160, accumulate=2)
    planner = Programs(config, shapes["teacher"], shapes["student"], mesh)
    plan = planner.supervised if stage == "sft" else planner.distillation
    lowered = next(plan(settings)).program
    given = lowered.args_info[0][2]
    lengths_E2 = np.full((8, 2), (80, 16))
    made = packing.pack(
        [Example([1] * 64, [1] * 16)] * 8, lengths_E2, pad_id=0,
        rows=4, multiple=16, chosen=[PaddedLengths(160, 160)],
    )  # fmt: skip
    assert given.keys() == made.keys()
    for name, array in made.items():
        assert (given[name].shape, given[name].dtype) == (array.shape, array.dtype), name
