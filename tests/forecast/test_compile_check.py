"""The programs of preset smoke, compiled for a TPU slice: what each moves between devices."""

import pytest

from configs import presets
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast.compiled import Compiled
from launch import compile_check

pytest.importorskip("libtpu")
pytestmark = [pytest.mark.tpu, pytest.mark.slow]

TOPOLOGY = "v5e:2x4"


@pytest.fixture(scope="module")
def programs() -> dict[str, Compiled]:
    found = compile_check.run(presets.smoke(), TOPOLOGY, MeshSettings(1, 8, 1))
    return {f"{one.stage} {one.name}": one for one in found}


def test_every_program_compiles(programs: dict[str, Compiled]) -> None:
    sampler = ("weights", "prefill", "start", "segment", "compact")
    wanted = ["sft update", "distill update", *(f"rl {name}" for name in sampler)]
    assert list(programs) == [*wanted, "rl teacher scores", "rl update"]
    for one in programs.values():
        assert one.seconds > 0 and one.arguments > 0 and one.outputs > 0
