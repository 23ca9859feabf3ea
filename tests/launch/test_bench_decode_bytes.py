"""Bytes of a decode step, of a small model for the CPU that is here."""

import dataclasses

import pytest

from distill_jax.models.released import PRESETS
from launch.bench import decode_bytes

GEOMETRY = dataclasses.replace(
    PRESETS["qwen2_5_1_5b"], vocab_size=512, hidden_size=64, intermediate_size=128, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=16, layer_types=(),
)  # fmt: skip


@pytest.mark.slow
def test_what_must_be_read_is_weights_and_cache() -> None:
    flags = decode_bytes._parser().parse_args(["--platform=cpu", "--rows=16", "--new=32"])
    one = decode_bytes.found(flags, GEOMETRY, 500)
    # Two layers, keys and values, two heads of 16, bfloat16: 16 rows of 32 slots, 2 of 256.
    assert one["cache_gb"] * 1e9 == 2 * 2 * 2 * 16 * 2 * (16 * 32 + 2 * 256) + 4 * 2
    layer = 64 * (4 + 2 + 2) * 16 + 64 * 64 + 3 * 64 * 128 + (4 + 2 + 2) * 16 + 2 * 64
    assert one["weights_gb"] * 1e9 == 2 * (2 * layer + 500 * 64 + 64) + 4
    assert one["moved_gb"] > one["weights_gb"] + one["cache_gb"]
    flags.cached = 10**9
    less = decode_bytes.found(flags, GEOMETRY, 500)
    assert 0.5 < less["ratio"] < one["ratio"]
