"""Operations by formula: worked by hand, and against what the compiler counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.forecast import flops
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.response import response_scores

SMALL = QwenConfig(
    model_type="qwen2", vocab_size=512, hidden_size=128, intermediate_size=384, num_layers=3,
    num_heads=4, num_kv_heads=2, head_dim=32, rope_theta=10_000.0,
)  # fmt: skip
# A layer: q and o 128·128 each, k and v 128·64 each, MLP 3·128·384.
LAYERS = 3 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
HEAD = 512 * 128
# Scores and values: 2·2·heads·head_dim a pair, 3 layers.
PAIR = 2 * 2 * 4 * 32 * 3


def test_weights_by_hand() -> None:
    assert flops.layer_parameters(SMALL) == LAYERS and flops.head_parameters(SMALL) == HEAD


def test_a_forward_pass_by_hand() -> None:
    # Two rows of 10 tokens, 6 and 4 of which are scored: 2 · 10²/2 pairs.
    work = flops.of_rows(20, 10, 2)
    assert work == flops.Work(20, 10, 100)
    assert flops.forward(SMALL, work) == 2 * (LAYERS * 20 + HEAD * 10) + PAIR * 100


def test_an_update_by_hand() -> None:
    work = flops.of_rows(20, 20, 2)
    weights, attention = 2 * (LAYERS + HEAD) * 20, PAIR * 100
    assert flops.update(SMALL, work, "full") == 3 * weights + 3 * attention
    assert flops.update(SMALL, work, "lora") == 2 * weights + 3 * attention
    twice = flops.update(SMALL, work, "lora", heads=2)
    assert twice == 2 * (weights + 2 * HEAD * 20) + 3 * attention


def test_samples_by_hand() -> None:
    # One prompt of 4 tokens, two samples of 6: 4²/2 pairs once, then for each sample those of 6
    # tokens with the prompt, 6·4, and among themselves, 6²/2.
    assert flops.of_samples(4, 12, 4, 6) == flops.Work(16, 12, 8 + 2 * (24 + 18))
    # With one sample it is the forward pass of the row.
    assert flops.of_samples(4, 6, 4, 6) == flops.of_rows(10, 6, 1)


def test_arrays_are_taken_place_by_place() -> None:
    work = flops.of_rows(np.array([20.0, 40.0]), np.array([10.0, 20.0]), np.array([2, 4]))
    np.testing.assert_allclose(flops.forward(SMALL, work)[1], 2 * flops.forward(SMALL, work)[0])


def test_the_compiler_counts_the_same_products() -> None:
    """Of scoring, whose attention computes the masked half, too; the rest is norms and softmax."""
    B, T, R = 4, 32, 16
    model = QwenModel(SMALL, unroll=True)
    params = model.shapes()

    def score(params: object, tokens: jax.Array, prompt: jax.Array, targets: jax.Array):
        return response_scores(model, params, tokens, prompt, targets).logp_BR

    ints = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((B, T), (B,), (B, R))]
    found = jax.jit(score).lower(params, *ints).compile().cost_analysis()["flops"]
    formula = flops.forward(SMALL, flops.Work(B * T, B * R, B * T * T))
    assert found == pytest.approx(formula, rel=0.03)
