"""What the hardware allows: bytes of a decode step."""

import jax.numpy as jnp

from distill_jax.forecast import flops
from distill_jax.models.qwen_config import QwenConfig


def decode_tokens_per_s(
    config: QwenConfig, rows: int, prompt: int, completion: int, dtype: str, bandwidth: float
) -> float:
    """Tokens a second if each step reads all weights once and the filled cache once."""
    size = jnp.dtype(dtype).itemsize
    weights = (flops.layer_parameters(config) + flops.head_parameters(config)) * size
    context = prompt + completion / 2
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context * rows * size
    return rows * bandwidth / (weights + cache)
