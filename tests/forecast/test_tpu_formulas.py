"""Activations of a TPU's programs by hand: what attention holds, kernels in pieces, the head."""

import dataclasses
from typing import Any

import pytest

from distill_jax.core import sharding
from distill_jax.forecast import activations
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.memory import Job
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.stages.settings import SFTSettings
from tests.forecast.test_kinds import TEACHER
from tests.stages.small import small

# Two query heads of 128 on one of keys and values: q 256, keys and values together 256.
D, F, L, V = 256, 1024, 3, 4096
GEOMETRY = QwenConfig("qwen2", V, D, F, L, 2, 1, 128)
KERNELS = D * (2 * 256 + 256 + 3 * F)
ONE = Program(GEOMETRY, "bfloat16", unroll=False, platform="tpu")
EIGHT = dataclasses.replace(ONE, fsdp=8)
LONG, SHORT = Rows(2, 1024, 32), Rows(2, 1016, 32)


def changed(program: Program, **how: Any) -> Program:
    return dataclasses.replace(program, **how)


def test_the_kernel_holds_no_scores() -> None:
    # Two states, gate, up and their product; a layer's kernels, gate and up joined.
    N = 2 * 1024
    assert activations.scoring(ONE, LONG) == 2 * N * (2 * D + 3 * F) + 2 * (KERNELS + D * 2 * F)
    # Adapters add none: those of H100 have two sums.
    assert activations.scoring(changed(ONE, rank=4), LONG) == activations.scoring(ONE, LONG)
    # Rows below 1,024 tokens are XLA's: scores of two heads in float32, and in bfloat16.
    N, scores = 2 * 1016, 2 * 1016
    attention = 2 * N * (D + 256 + scores) + 4 * N * scores
    assert activations.scoring(ONE, SHORT) == attention + 2 * (KERNELS + D * 2 * F)


@pytest.mark.parametrize(
    "how",
    [
        {"platform": "gpu"},
        {"attention": "xla"},
        {"compute_dtype": "float32"},
        {"geometry": dataclasses.replace(GEOMETRY, num_heads=4, head_dim=64)},
        {"geometry": dataclasses.replace(
            GEOMETRY, sliding_window=512, layer_types=("sliding_attention",) * L)},
    ],
)  # fmt: skip
def test_others_hold_them(how: dict[str, Any]) -> None:
    assert ONE.scores(1024) == 0
    program = changed(ONE, **how)
    assert program.scores(1024) == 1024 * program.geometry.num_heads


def test_kernels_that_come_in_pieces_take_three_products() -> None:
    N, head = 2 * 1024, 2 * V * D
    # Three states, and three arrays as wide as gate and up.
    pieces = 2 * N * (3 * D + 6 * F)
    assert activations.scoring(EIGHT, LONG, shards=8) == head + pieces
    # Of few tokens whole kernels are more.
    few = 2 * 16 * (D + 256 + 2 * 16) + 4 * 16 * 2 * 16 + 2 * (KERNELS + D * 2 * F)
    mlp = 2 * 16 * (2 * D + 3 * F) + 2 * (KERNELS + D * 2 * F)
    assert activations.scoring(EIGHT, Rows(1, 16, 8), shards=8) == head + max(few, mlp)


def test_an_update_holds_the_head_or_a_block() -> None:
    middle = dataclasses.replace(GEOMETRY, vocab_size=2**14)
    program = changed(EIGHT, remat=True, geometry=middle)
    N, head = 2 * 1024, 2 * 2**14 * D
    saved = L * 2 * N * D
    # The forward pass, while the gathered head waits.
    pieces = 2 * N * (3 * D + 6 * F)
    assert activations.update(program, LONG, shards=8) == saved + head + pieces
    # The head and its copy, if its vocabulary is large.
    large = dataclasses.replace(GEOMETRY, vocab_size=2**17)
    wide = changed(program, geometry=large)
    assert activations.update(wide, Rows(2, 1024, 16), shards=8) == saved + 2 * 2 * 2**17 * D
    # On one device the backward pass: what a block keeps (four states; q, keys and values twice,
    # the attended twice; gate, up, product), two gradients as wide as F, the kernels.
    block = 2 * N * (4 * D + 2 * 512 + 2 * 256 + 3 * F) + 2 * KERNELS
    alone = changed(program, fsdp=1)
    assert activations.update(alone, LONG) == saved + block + 2 * N * 2 * F
    # XLA's attention keeps two heads' weights and has their gradients, which are more than 2·F.
    N = 2 * 1016
    block = 2 * N * (4 * D + 2 * 512 + 2 * 256 + 2 * 1016 + 3 * F) + 2 * KERNELS
    assert activations.update(alone, SHORT) == L * 2 * N * D + block + 2 * N * (2 * 1016 * 5 // 4)
    # On a GPU there are scores of two heads, the product's gradient too, and no pieces.
    gpu, N = changed(alone, platform="gpu"), 2 * 1024
    block = 2 * N * (4 * D + 2 * 512 + 2 * 256 + 3 * F) + 2 * KERNELS
    assert activations.update(gpu, LONG) == saved + block + 2 * N * (2 * 1024 + 3 * F)


def test_tokens_of_groups_attend_to_fewer_keys_than_a_row_has() -> None:
    # Scores of two heads over 900 keys, in rows of 1,016: float32 and bfloat16, as of XLA's.
    rows, N, scores = SHORT._replace(most_keys=900), 2 * 1016, 2 * 900
    attention = 2 * N * (D + 256 + scores) + 4 * N * scores
    assert activations.scoring(ONE, rows) == attention + 2 * (KERNELS + D * 2 * F)
    block = 2 * N * (4 * D + 2 * 512 + 2 * 256 + scores + 3 * F) + 2 * KERNELS
    update = activations.update(changed(ONE, remat=True), rows)
    assert update == L * 2 * N * D + block + 2 * N * (scores * 5 // 4)


def test_packed_rows_are_counted_as_they_are() -> None:
    config = small(sampling__max_new_tokens=24, data__max_prompt_tokens=64)
    job = Job(config, TEACHER, GEOMETRY, sharding.abstract_mesh(config.mesh, 1), platform="tpu")
    # Examples of 88 tokens, two to a row of 200: 16 of them are 8 rows, with responses anywhere.
    packed = job.supervised(SFTSettings(batch_size=16, packing=200, accumulate=2))[-1]
    program = job.program("student", dropout=True)
    assert packed.bytes == activations.update(program, Rows(4, 200, 200))
    apart = job.supervised(SFTSettings(batch_size=16, accumulate=2))[-1]
    assert apart.bytes == activations.update(program, Rows(8, 96, 32))


def test_the_platform_is_the_meshs_or_as_asked() -> None:
    config = small()
    mesh = sharding.abstract_mesh(config.mesh, 1)
    of_gpu = Job(config, TEACHER, GEOMETRY, mesh)
    of_tpu = Job(config, TEACHER, GEOMETRY, mesh, platform="tpu")
    assert (of_gpu.platform, of_tpu.platform) == ("gpu", "tpu")
    assert of_tpu.program("student").platform == "tpu"
    here = sharding.make_mesh(sharding.MeshSettings(1, 1, 1))
    assert Job(config, TEACHER, GEOMETRY, here).program("student").cpu
    # Layers of a TPU are scanned, of one GPU without remat unrolled.
    settings = dataclasses.replace(config.student, unroll=None, attention="xla")
    config = dataclasses.replace(config, student=settings)
    for platform, unroll in (("tpu", False), ("gpu", True)):
        made = Job(config, TEACHER, GEOMETRY, mesh, platform=platform)
        program = made.program("student")
        assert (program.unroll, program.attention) == (unroll, "xla")
