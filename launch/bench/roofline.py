"""What the hardware allows: its peaks, and the bytes of a decode step."""

import jax.numpy as jnp

from distill_jax.forecast import flops
from distill_jax.models.qwen_config import QwenConfig

# Part of a device's name -> bf16 products, FLOP/s, and a copy, bytes/s; both as measured on one.
PEAKS = {"H100": (790e12, 3.0e12), "H200": (790e12, 4.3e12)}


def peaks(device: str) -> tuple[float, float] | None:
    """FLOP/s and bytes/s of a device of this name; None: not known."""
    return next((both for name, both in PEAKS.items() if name in device), None)


def decode_tokens_per_s(
    config: QwenConfig, rows: int, prompt: int, completion: int, dtype: str, bandwidth: float
) -> float:
    """Tokens a second if each step reads all weights once and the filled cache once."""
    size = jnp.dtype(dtype).itemsize
    weights = (flops.layer_parameters(config) + flops.head_parameters(config)) * size
    context = prompt + completion / 2
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context * rows * size
    return rows * bandwidth / (weights + cache)
