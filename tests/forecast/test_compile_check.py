"""The programs of preset smoke, compiled for a TPU slice: what each moves between devices.

Six samples of a prompt are six rows on a device, an extent that no weights have; so an array of a
collective is known by its extents. The head takes twelve tokens of a device at a time, so that
these models, too, have several chunks.
"""

import dataclasses
import math
from typing import NamedTuple

import pytest

from configs import presets
from distill_jax.core import sharding
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import compiled
from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.compiled_programs import Planned, Programs, outputs
from distill_jax.forecast.topology import tpu_devices
from distill_jax.models.head import chunks
from distill_jax.run.config import RunConfig
from distill_jax.stages.dry_run import job
from launch import compile_check

pytest.importorskip("libtpu")
pytestmark = [pytest.mark.tpu, pytest.mark.slow]

TOPOLOGY = "v5e:2x4"
MESHES = {"1x8x1": (1, 8, 1), "2x2x2": (2, 2, 2), "1x4x2": (1, 4, 2)}
PROMPTS, TOKENS, ROWS = 4, 64, 6  # of a prompt, rows on a device
NEW = 16
WIDTH, HEAD_ROWS, CHUNK = 32, 320, 12


def config() -> RunConfig:
    smoke = presets.smoke()
    rl = dataclasses.replace(smoke.plan["rl"], samples_per_prompt=ROWS)
    return dataclasses.replace(smoke, plan={**smoke.plan, "rl": rl})


class Slice(NamedTuple):
    """Programs of one mesh, by stage and name."""

    mesh: MeshSettings
    planner: Programs
    programs: dict[str, Compiled]


@pytest.fixture(scope="module", params=MESHES.values(), ids=MESHES)
def found(request: pytest.FixtureRequest) -> Slice:
    settings, plan = MeshSettings(*request.param), config()
    mesh = sharding.make_mesh(settings, tpu_devices(TOPOLOGY))
    shapes = job(plan, mesh).geometries
    planner = Programs(plan, shapes["teacher"], shapes["student"], mesh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_ELEMENTS", CHUNK * HEAD_ROWS)
        programs = list(compile_check.run(plan, tpu_devices(TOPOLOGY), settings))
    return Slice(settings, planner, {f"{one.stage} {one.name}": one for one in programs})


def test_every_program_compiles(found: Slice) -> None:
    whole = "weights of a layer, whole"
    sampler = ("weights", whole, "prefill", "start", "segment", "compact")
    wanted = ["sft update", "distill update", *(f"rl {name}" for name in sampler)]
    assert list(found.programs) == [*wanted, "rl teacher scores", "rl update"]
    for one in found.programs.values():
        assert one.seconds > 0 and one.arguments > 0 and one.outputs > 0


def test_donated_states_and_caches_are_aliased(found: Slice) -> None:
    for name in ("sft update", "distill update", "rl update", "rl segment"):
        one = found.programs[name]
        # All outputs but metrics, and but drawn tokens with their log-probabilities.
        assert 0.9 * one.outputs < one.aliased <= one.outputs, name


def test_loops_are_of_known_length(found: Slice) -> None:
    for name, one in found.programs.items():
        assert None not in one.loops, name
    assert 8 in found.programs["rl segment"].loops  # steps of a segment


def test_decoding_moves_no_weights_and_no_cache(found: Slice) -> None:
    segment = found.programs["rl segment"]
    if found.mesh.tensor == 1:
        assert segment.collectives == ()
    for one in segment.collectives:
        # Partial sums of states, and logits: some of each row.
        assert one.loops == 1 and ROWS in one.largest.shape, one
        assert not {NEW, TOKENS} & set(one.largest.shape), one


def test_rows_that_stay_where_they_are_move_nothing(found: Slice) -> None:
    compact = found.programs["rl compact"]
    # Of a device: half of its rows, with prompts and all slots.
    assert any({ROWS // 2, TOKENS + NEW} <= set(array.shape) for array in compact.arrays)
    assert not [one for one in compact.collectives if one.bytes > 1000], compact.collectives


def test_decode_weights_are_whole_but_for_tensor(found: Slice) -> None:
    layer = found.programs["rl weights of a layer, whole"]
    assert {one.kind for one in layer.collectives} == {"all-gather"}
    assert layer.outputs > (6 if found.mesh.tensor == 1 else 1.4) * layer.arguments


def test_prefill_with_whole_weights_moves_partial_sums_alone(found: Slice) -> None:
    prefill = found.programs["rl prefill"]
    if found.mesh.tensor == 1:
        assert prefill.collectives == ()
    rows = math.ceil(PROMPTS / (found.mesh.data * found.mesh.fsdp))
    for one in prefill.collectives:
        assert (one.kind, one.largest.shape) == ("all-reduce", (rows * TOKENS, WIDTH))


def test_prefill_with_split_weights_keeps_its_rows_split(found: Slice) -> None:
    planner = found.planner

    def plan() -> Planned:
        made = planner.weights(planner.student)
        weights = outputs(made.program, (yield made))
        yield planner.prefill(planner.student, weights, PROMPTS)

    prefill = list(compiled.each("rl", plan()))[-1]
    shards = found.mesh.data * found.mesh.fsdp
    whole = max(PROMPTS, shards) * TOKENS  # of all devices; each looks their embeddings up
    layers = [x for x in prefill.collectives if "_take" not in x.op_name]
    assert layers and not any(whole in x.largest.shape for x in layers)


@pytest.mark.parametrize(
    ("name", "heads"),
    [("sft update", 1), ("distill update", 2), ("rl teacher scores", 1), ("rl update", 1)],
)
def test_each_head_is_gathered_once(found: Slice, name: str, heads: int) -> None:
    size = HEAD_ROWS // found.mesh.tensor * WIDTH
    gathers = [
        x
        for x in found.programs[name].collectives
        if x.kind == "all-gather" and math.prod(x.largest.shape) == size
        if "_take" not in x.op_name  # of the embedding
    ]
    assert {x.loops for x in gathers} == {0}
    # The unit multiplies bfloat16: a float32 head goes as three arrays, or as fewer for fewer bits.
    assert heads <= sum(x.bytes for x in gathers) / (2 * size) <= 3 * heads


@pytest.mark.parametrize("name", ["sft update", "distill update", "rl teacher scores", "rl update"])
def test_no_logits_beyond_a_chunk(found: Slice, name: str) -> None:
    rows = HEAD_ROWS // found.mesh.tensor
    tokens = {
        math.prod(x.shape[:-1])
        for x in found.programs[name].arrays
        if x.dtype == "f32" and x.shape[-1:] == (rows,)
    }
    assert 1 < max(tokens) <= CHUNK
