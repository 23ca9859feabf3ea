"""The programs of preset smoke, compiled for H100s that are not here: what eight and one do."""

import dataclasses
import io

import pytest
from rich.console import Console

from configs import presets
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import compiled
from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.gpu_target import gpu_devices
from distill_jax.run.config import RunConfig
from launch import compile_check

pytest.importorskip("jax_plugins.xla_cuda12")
pytestmark = [pytest.mark.cuda, pytest.mark.slow]


def compile_for(config: RunConfig, count: int, *only: str) -> dict[str, Compiled]:
    found = compile_check.run(config, gpu_devices("h100", count), MeshSettings(1, count, 1), only)
    return {f"{one.stage} {one.name}": one for one in found}


@pytest.fixture(scope="module")
def eight() -> dict[str, Compiled]:
    return compile_for(presets.smoke(), 8, "segment", "teacher scores", "rl:update")


def test_the_programs_asked_for_compile(eight: dict[str, Compiled]) -> None:
    sampler = ("weights", "weights of a layer, whole", "prefill", "start", "segment", "compact")
    names = (*sampler, "teacher scores", "update")
    assert list(eight) == [f"rl {name}" for name in names]
    for one in eight.values():
        assert one.arguments < one.peak <= one.held + one.aliased


def test_decoding_moves_nothing(eight: dict[str, Compiled]) -> None:
    segment = eight["rl segment"]
    assert 8 in segment.loops and segment.collectives == ()
    assert 0.9 * segment.outputs < segment.aliased <= segment.outputs


def test_the_head_is_gathered_outside_of_loops(eight: dict[str, Compiled]) -> None:
    config = presets.smoke()
    for name in ("rl teacher scores", "rl update"):
        gathers = [x for x in eight[name].collectives if x.kind == "all-gather"]
        assert config.teacher.hidden_size in gathers[0].largest.shape
        assert {x.loops for x in gathers} == {0}, name


def test_operations_are_not_counted_and_the_table_says_so(eight: dict[str, Compiled]) -> None:
    assert {one.flops for one in eight.values()} == {None}
    screen = io.StringIO()
    for table in compiled.tables(list(eight.values()), "title"):
        Console(file=screen, width=200).print(table)
    assert screen.getvalue().count("not given") == len(eight)


def test_cudnn_attention_compiles_without_a_gpu() -> None:
    smoke = presets.smoke()
    how = {"attention": "cudnn", "compute_dtype": "bfloat16", "param_dtype": "bfloat16"}
    teacher = dataclasses.replace(smoke.teacher, **how)
    found = compile_for(dataclasses.replace(smoke, teacher=teacher), 1, "teacher scores")
    (scores,) = found.values()
    xla = compile_for(presets.smoke(), 1, "teacher scores")["rl teacher scores"]
    assert scores.temporaries < xla.temporaries and scores.collectives == ()
