"""Lengths of rows as GSM8K has them with Qwen's tokenizer."""

import numpy as np

# Medians and 99th percentiles: prompts of 68 and 140 tokens, responses of 112 and 288.
_MEDIANS, _SPREADS = (68.0, 112.0), (0.31, 0.405)


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """Tokens of rows and of their responses, int64 [count, 2]."""
    draw = np.random.default_rng(seed).standard_normal((count, 2))
    found = np.exp(np.log(_MEDIANS) + draw * _SPREADS).astype(np.int64)
    prompt_N, response_N = np.clip(found, 24, (224, 454)).T
    return np.stack([prompt_N + response_N, response_N], axis=1)
