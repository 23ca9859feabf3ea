"""Floating-point operations of a model by formula, from its geometry and counts of tokens alone.

A product of a token with a weight is 2 operations. Counted are the products with weights and those
of attention; not counted are norms, rotations, softmax, the adapter's own products and its merging,
the optimiser and whatever is computed a second time to save memory. In a layer with an attention
window all earlier keys count.
"""

from typing import Any, NamedTuple

from distill_jax.models.qwen_config import QwenConfig

# Forward and backward: the activations' gradient costs as much as the forward pass, that of the
# weights once more.
_PASSES = {"lora": 2, "full": 3}
# The backward pass of attention has twice the products of the forward one, whatever is trained.
_ATTENTION_PASSES = 3


class Work(NamedTuple):
    """What goes through a model; numbers or numpy arrays.

    Attributes:
        tokens: that pass through its layers.
        scored: that are drawn or scored, for which the head is applied once.
        pairs: of a query and a key, all rows together.
    """

    tokens: Any
    scored: Any
    pairs: Any


def of_rows(tokens: Any, scored: Any, rows: Any) -> Work:
    """The work of rows of equal length: T tokens have T²/2 pairs. Rows of other lengths with the
    same sum have more, by the variance of their length over its squared mean."""
    return Work(tokens, scored, tokens * tokens / (2.0 * rows))


def of_samples(prefilled: Any, drawn: Any, prompt: Any, response: Any) -> Work:
    """The work of drawing completions.

    Args:
        prefilled: tokens of prompts, each prompt once.
        drawn: tokens drawn, all samples together; each goes through the layers, the last too.
        prompt, response: mean lengths.
    """
    pairs = prefilled * prompt / 2.0 + drawn * (prompt + response / 2.0)
    return Work(prefilled + drawn, drawn, pairs)


def layer_parameters(config: QwenConfig) -> int:
    """Weights of all layers that each token is multiplied with."""
    D, F, h = config.hidden_size, config.intermediate_size, config.head_dim
    attention = 2 * D * h * config.num_heads + 2 * D * h * config.num_kv_heads
    return config.num_layers * (attention + 3 * D * F)


def head_parameters(config: QwenConfig) -> int:
    """Weights of the head."""
    return config.vocab_size * config.hidden_size


def forward(config: QwenConfig, work: Work) -> Any:
    """Operations of a forward pass."""
    return _products(config, work, heads=1) + _attention(config, work)


def update(config: QwenConfig, work: Work, trainable: str, *, heads: int = 1) -> Any:
    """Operations of a forward and a backward pass.

    trainable: "lora", where weights have no gradient, or "full". heads: how often the loss applies
    the head to a token.
    """
    products = _PASSES[trainable] * _products(config, work, heads)
    return products + _ATTENTION_PASSES * _attention(config, work)


def _products(config: QwenConfig, work: Work, heads: int) -> Any:
    head = heads * head_parameters(config) * work.scored
    return 2.0 * (layer_parameters(config) * work.tokens + head)


def _attention(config: QwenConfig, work: Work) -> Any:
    """Scores and weighted values: 2 products of head_dim a pair, head and layer."""
    return 4.0 * config.num_layers * config.num_heads * config.head_dim * work.pairs
