"""The number of parameters of a geometry, added up by hand: an oracle for shapes."""

from distill_jax.models.qwen_config import QwenConfig


def parameter_count(config: QwenConfig) -> int:
    """Number of stored parameters; a tied embedding counts once."""
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = d * q + 2 * d * kv + q * d
    attention += (q + 2 * kv) if config.qkv_bias else 0
    attention += 2 * config.head_dim if config.qk_norm else 0
    layer = attention + 3 * d * f + 2 * d
    embeddings = config.vocab_size * d * (1 if config.tie_embeddings else 2)
    return embeddings + config.num_layers * layer + d
