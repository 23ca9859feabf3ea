"""Memory of drawing: caches by hand, and compared with XLA's analysis of the sampler's programs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import sharding
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.forecast import activations, cache
from distill_jax.forecast.activations import Program
from distill_jax.forecast.cache import Batch
from distill_jax.forecast.memory import Job
from distill_jax.models import cache as kv
from distill_jax.models.cache import SharedPrompts
from distill_jax.models.lora import LoraConfig
from distill_jax.rollout.compiled import BUCKET, NO_GROWTH
from distill_jax.rollout.sampler import Carry, Sampler, SamplingSettings
from distill_jax.rollout.weights import decode_shardings, decode_weights
from distill_jax.stages.traces import TraceSettings
from tests import tiny
from tests.forecast.test_kinds import NEW, PROMPT, SLOT, STUDENT, TEACHER, job, parts
from tests.forecast.test_memory import MESHES, abstract, model_of, program_of, shapes, total
from tests.stages.small import small

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

# Two kv heads a device: with one, XLA:CPU copies the cache at each step.
SIZES = (128, 512, 3, 4, 4, 2048)
ROWS, SAMPLES, LENGTH, TOKENS = 64, 4, 32, 64
DRAW = SamplingSettings(max_new_tokens=TOKENS, segment=4)


class Device:
    """A sampler on a mesh, and shapes of what it carries; bucket: see `rollout.compiled`."""

    def __init__(self, mesh: str, bucket: int):
        self.mesh = tiny.mesh(*MESHES[mesh])
        self.model = model_of(SIZES, self.mesh, lora=LoraConfig(rank=4))
        how = {"eos_id": 1, "pad_id": 0, "vocab": SIZES[-1]}
        self.sampler = Sampler(self.model, self.mesh, **how, bucket=bucket)
        self.programs, self.of = self.sampler.programs, type(self.sampler.programs)

    def weights(self) -> Any:
        params = shapes(self.model, self.mesh)
        found = jax.eval_shape(lambda x: decode_weights(self.model, x, True, SIZES[-1]), params)
        return abstract(found, decode_shardings(found, self.mesh))

    def size(self, *extents: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(extents, dtype, sharding=self.sampler.rows)

    def cache(self, rows: int, slots: int) -> kv.KVCache:
        g, where = self.model.config, self.sampler.cache_sharding
        k, v = (
            jax.ShapeDtypeStruct((rows, g.num_kv_heads, *last), jnp.float32, sharding=where)
            for last in ((g.head_dim, slots), (slots, g.head_dim))
        )
        return kv.KVCache((k,) * g.num_layers, (v,) * g.num_layers)

    def carry(self, slots: int, shared: bool = False) -> Carry:
        key = jax.ShapeDtypeStruct((ROWS,), jax.eval_shape(lambda: jax.random.key(0)).dtype)
        hidden = self.size(ROWS, self.model.config.hidden_size, dtype=jnp.float32)
        numbers = self.size(ROWS, slots), self.size(ROWS), self.size(ROWS, dtype=jnp.bool_)
        P = ROWS // SAMPLES
        prompts = SharedPrompts(self.cache(P, LENGTH), self.size(P)) if shared else None
        return Carry(hidden, self.cache(ROWS, slots), *numbers, key, prompts)


def batch_on(mesh: Any) -> Batch:
    shards = sharding.batch_shards(mesh)
    return Batch(ROWS // SAMPLES // shards, SAMPLES, LENGTH, shards, DRAW)


@pytest.mark.parametrize("mesh", ["one", "all"])
def test_decoding(mesh: str) -> None:
    device = Device(mesh, NO_GROWTH)
    start, carry = np.array([0, 0], np.int32), device.carry(TOKENS, shared=True)
    lowered = device.of.segment.lower(device.programs, device.weights(), carry, start, 4, DRAW)
    held, temp = total(lowered.compile())
    g, program = device.model.config, program_of(SIZES, device.mesh)
    job = Job(small(), g, g, device.mesh)
    batch = batch_on(device.mesh)
    found = cache.drawn(program, batch) + activations.decoding(program, batch.rows)
    # Its weights copy, cache and temporaries are what the segment's program holds.
    assert abs(job.decode_weights("student") + found - held - temp) <= 0.15 * (held + temp)


@pytest.mark.parametrize("mesh", ["one", "all"])
@pytest.mark.parametrize("bucket", [NO_GROWTH, BUCKET])
def test_the_forecast_holds_the_caches_of_the_program_that_drops_rows(
    mesh: str, bucket: int
) -> None:
    device = Device(mesh, bucket)
    # 32 rows stay, each with its prompt and all slots; the prompts were shared by 4 or by none.
    size, parts = ROWS // 2, sharding.batch_shards(device.mesh)
    kept: Any = device.size(size), device.size(size, dtype=jnp.bool_)
    kept = *kept, LENGTH + TOKENS, parts > 1
    carry = device.carry(TOKENS, shared=True)
    compiled = device.of.compact.lower(device.programs, carry, *kept).compile()
    program = dataclasses.replace(
        program_of(SIZES, device.mesh), platform="gpu" if bucket == BUCKET else "cpu"
    )
    found, (held, _) = cache.compacting(program, batch_on(device.mesh)), total(compiled)
    # Besides the caches there are a hidden state and a few numbers of each row.
    assert found <= held <= 1.05 * found
    assert held > 1.2 * cache.drawn(program, batch_on(device.mesh))


# --- by hand ------------------------------------------------------------------------------------

# A slot of STUDENT's cache has SLOT bytes.
FEW = SamplingSettings(max_new_tokens=NEW, segment=8)
STUDENTS = Program(STUDENT)


def slots(
    prompts: int, samples: int, prompt: int = PROMPT, platform: str = "gpu", **how: Any
) -> float:
    batch = Batch(prompts, samples, prompt, 1, dataclasses.replace(FEW, **how))
    return cache.compacting(dataclasses.replace(STUDENTS, platform=platform), batch) / SLOT


def test_both_caches_are_held_while_rows_leave() -> None:
    # 16 rows of 24 slots, 4 prompts of 64; then 8 rows with prompt and tokens.
    assert slots(4, 4) == 16 * 24 + 4 * 64 + 8 * 88
    # With a prompt in each row, where each has one sample.
    assert slots(16, 1) == 16 * 88 + 8 * 88
    # A quarter stays; of five rows no half.
    assert slots(4, 4, row_counts=2) == 16 * 24 + 4 * 64 + 4 * 88
    assert slots(4, 4, row_counts=1) == slots(1, 5) == 0
    # A shared prompt of 640 is copied into 8 rows: then 8 and 4 such rows are more.
    assert slots(1, 16, 640) == 8 * 664 + 4 * 664 > 16 * 24 + 640 + 8 * 664
    # But the only check for ends is one after 16 tokens; after 24 there is none.
    assert slots(1, 16, 640, segment=16) == 16 * 24 + 640 + 8 * 664
    assert slots(4, 4, segment=24) == 0


def test_rows_that_leave_before_the_cache_has_grown() -> None:
    # 128 slots until the only check, after 128 of 256 tokens; those that stay have 256.
    how = {"max_new_tokens": 256, "segment": 128}
    assert slots(4, 4, **how) == 16 * 128 + 4 * 64 + 8 * (64 + 256)
    # On CPU all 256 are there from the start.
    assert slots(4, 4, platform="cpu", **how) == 16 * 256 + 4 * 64 + 8 * (64 + 256)
    batch = Batch(4, 4, PROMPT, 1, SamplingSettings(**how))
    # One of two layers is held twice while it grows.
    assert cache.drawn(STUDENTS, batch) / SLOT == 16 * 256 * 1.5 + 4 * 64
    few = Batch(4, 4, PROMPT, 1, FEW)
    assert cache.drawn(STUDENTS, few) / SLOT == 16 * 24 + 4 * 64  # fit into the first slots


def test_a_rollout_is_at_least_both_caches() -> None:
    # 4 prompts of 4 samples; half of the rows stay.
    found = parts(small().plan["rl"], sampling__segment=8)
    copy = job().decode_weights("student")
    decoding = SLOT * (16 * 24 + 4 * 64) + activations.decoding(job().program("student"), 16)
    held = SLOT * (16 * 24 + 4 * 64 + 8 * 88)
    assert found["rollout: decode weights, cache, logits"] == copy + max(held, decoding)


def drawing(problems: int, prompts: int, samples: int, platform: str = "gpu") -> float:
    """Slots that a draw of so many problems holds, besides weights and logits."""
    config = small(
        sampling__max_new_tokens=NEW, data__max_prompt_tokens=PROMPT, sampling__segment=24
    )
    made = Job(config, TEACHER, STUDENT, sharding.abstract_mesh(config.mesh, 1), platform=platform)
    # Two problems are one batch, which is not refilled.
    found = made.writing("student", "solutions", prompts * samples, prompts, problems=problems)
    decoded = activations.decoding(made.program("student"), prompts * samples)
    return (found[1].bytes - made.decode_weights("student") - decoded) / SLOT


def test_batches_share_their_prompts() -> None:
    assert drawing(2, 2, 8) == 16 * 24 + 2 * 64
    assert drawing(2, 2, 8, platform="cpu") == 16 * 24 + 2 * 64
    assert drawing(2, 2, 1) == 2 * (24 + 64)  # one sample: nobody to share with
    # Many problems are refilled, and rows that are refilled share none; their prompts wait.
    waiting = 4 * 64 + 4 * 64 * 4 / SLOT
    assert drawing(999, 4, 8) == 32 * (24 + 64) + waiting
    # Of a number of problems that is not known, the larger.
    assert drawing(0, 4, 8) == drawing(999, 4, 8)


def test_stages_that_draw_few_batches_share() -> None:
    how = {"sampling__segment": 24}
    made = job()

    def cached(settings: Any, samples: int) -> float:
        held = list(parts(settings, **how).values())[1]
        more = made.decode_weights("student")
        return (held - more - activations.decoding(made.program("student"), 8 * samples)) / SLOT

    assert cached(TraceSettings(samples=4, batch=32, problems=8), 4) == 32 * 24 + 8 * 64
    assert cached(SolveSettings(batch=32, problems=8, attempts=4), 4) == 32 * 24 + 8 * 64


def test_rows_are_those_of_whole_prompts_on_each_device() -> None:
    config = small(sampling__max_new_tokens=NEW, data__max_prompt_tokens=PROMPT)
    eight = Job(config, TEACHER, STUDENT, sharding.abstract_mesh(config.mesh, 8))
    # Three prompts are filled up to eight: each device has one, and its four samples.
    assert eight.drawing.batches(3, 4) == eight.drawing.batches(8, 4)
    assert eight.drawing.batches(9, 4) == eight.drawing.batches(16, 4) > eight.drawing.batches(8, 4)
