"""What the hardware allows: floating-point work of a step, bytes of a decode step."""

import jax.numpy as jnp

from distill_jax.models.qwen_config import QwenConfig


def matrix_parameters(config: QwenConfig) -> int:
    """Weights that every token is multiplied with, the head included, the embedding not."""
    D, F, h = config.hidden_size, config.intermediate_size, config.head_dim
    attention = 2 * D * h * config.num_heads + 2 * D * h * config.num_kv_heads
    return config.num_layers * (attention + 3 * D * F) + config.vocab_size * D


def train_flops(config: QwenConfig, rows: int, tokens: int, mode: str) -> float:
    """Work of a step on rows × tokens: 2 a weight and token forwards, and backwards 2 for the
    activations, and 2 for the weights where they are trained ("full"); plus the causal half of
    attention. Recomputation and the adapter's products are not counted."""
    passes = {"lora": 2, "full": 3}[mode]
    weights = 2.0 * matrix_parameters(config) * rows * tokens
    attention = 2.0 * config.num_layers * config.num_heads * config.head_dim * rows * tokens**2
    # The backward pass of attention has twice the products of the forward one in either mode.
    return passes * weights + 3 * attention


def decode_tokens_per_s(
    config: QwenConfig, rows: int, prompt: int, completion: int, dtype: str, bandwidth: float
) -> float:
    """Tokens a second if each step reads all weights once and the filled cache once."""
    size = jnp.dtype(dtype).itemsize
    weights = matrix_parameters(config) * size
    context = prompt + completion / 2
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context * rows * size
    return rows * bandwidth / (weights + cache)
