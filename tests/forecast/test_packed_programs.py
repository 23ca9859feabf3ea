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
from distill_jax.rewards.length_buckets import BucketSettings
from distill_jax.rewards.packed_calls import PackedCall
from distill_jax.rewards.packed_teacher import packed
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


def test_the_teachers_packed_call_is_the_largest_of_its_settings() -> None:
    config = presets.smoke()
    mesh = sharding.make_mesh(sharding.MeshSettings(1, 1, 1), jax.devices()[:1])
    shapes = job(config, mesh).geometries
    planner = Programs(config, shapes["teacher"], shapes["student"], mesh)
    buckets = BucketSettings(lengths=2, packed=True)
    settings: Any = dataclasses.replace(config.plan["rl"], buckets=buckets)
    lowered = planner.teacher_scores(settings, planner.student).program
    longest = settings.teacher.longest_prompt(config) + config.sampling.response_tokens
    width = max(buckets.sizes(longest, settings.batch_multiple))
    host = {
        "tokens_BT": np.ones((1, 4), np.int32),
        "targets_BR": np.ones((1, 2), np.int32),
        "prompt_len_B": np.array([2]),
        "response_len_B": np.array([2]),
    }
    made = packed(host, PackedCall(width, [[0]]), shared=True)
    given = lowered.args_info[0][1]
    assert given.keys() == made.keys()
    for name, array in made.items():
        assert (given[name].shape, given[name].dtype) == (array.shape, array.dtype), name
