"""The programs of preset smoke, compiled for a TPU slice: what each moves between devices."""

import pytest

from configs import presets
from distill_jax.core import sharding
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import compiled
from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.compiled_programs import Planned, Programs, outputs
from distill_jax.forecast.topology import tpu_devices
from distill_jax.stages.dry_run import job
from launch import compile_check

pytest.importorskip("libtpu")
pytestmark = [pytest.mark.tpu, pytest.mark.slow]

TOPOLOGY, MESH, CONFIG = "v5e:2x4", MeshSettings(1, 8, 1), presets.smoke()


@pytest.fixture(scope="module")
def programs() -> dict[str, Compiled]:
    found = compile_check.run(CONFIG, TOPOLOGY, MESH)
    return {f"{one.stage} {one.name}": one for one in found}


@pytest.fixture(scope="module")
def planner() -> Programs:
    mesh = sharding.make_mesh(MESH, tpu_devices(TOPOLOGY))
    shapes = job(CONFIG, mesh).geometries
    return Programs(CONFIG, shapes["teacher"], shapes["student"], mesh)


def test_every_program_compiles(programs: dict[str, Compiled]) -> None:
    whole = "weights of a layer, whole"
    sampler = ("weights", whole, "prefill", "start", "segment", "compact")
    wanted = ["sft update", "distill update", *(f"rl {name}" for name in sampler)]
    assert list(programs) == [*wanted, "rl teacher scores", "rl update"]
    for found in programs.values():
        assert found.seconds > 0 and found.arguments > 0 and found.outputs > 0


def test_donated_states_and_caches_are_aliased(programs: dict[str, Compiled]) -> None:
    for name in ("sft update", "distill update", "rl update", "rl segment"):
        found = programs[name]
        # All outputs but metrics, and but drawn tokens with their log-probabilities.
        assert 0.9 * found.outputs < found.aliased <= found.outputs, name


def test_decoding_moves_nothing_between_devices(programs: dict[str, Compiled]) -> None:
    assert programs["rl segment"].collectives == ()
    assert programs["rl prefill"].collectives == ()
    layer = programs["rl weights of a layer, whole"]
    assert {found.kind for found in layer.collectives} == {"all-gather"}
    assert layer.outputs > 6 * layer.arguments  # whole on each device, but norms already were


def test_prefill_with_split_weights_keeps_its_rows_split(planner: Programs) -> None:
    def plan() -> Planned:
        made = planner.weights(planner.student)
        weights = outputs(made.program, (yield made))
        yield planner.prefill(planner.student, weights, 4)

    prefill = compiled.compile_all("rl", plan())[-1]
    whole = 8 * 64  # rows × tokens of all devices; their ids [512] are looked up on each
    activations = [x for x in prefill.collectives if len(x.largest.shape) > 1]
    assert activations and not any(
        x.kind == "all-reduce" or whole in x.largest.shape for x in activations
    )
