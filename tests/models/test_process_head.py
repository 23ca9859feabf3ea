"""The heads of a process reward model against a plain reading of their published form."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.models import process_head

H = 6


def drawn(kind):
    rng = np.random.default_rng(0)
    shapes = process_head.shapes(kind, H)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_mlp_equals_the_published_head():
    # Qwen2.5-Math-PRM: score = Sequential(Linear(H, H), ReLU, Linear(H, 2)), y = x·Wᵀ + b.
    params = drawn("mlp")
    hidden_BSH = np.random.default_rng(1).standard_normal((3, 4, H)).astype(np.float32)
    want = np.empty((3, 4, 2))
    for place in np.ndindex(3, 4):
        x = hidden_BSH[place].astype(np.float64)
        inner = [
            max(0.0, float(w @ x + b))
            for w, b in zip(params["0.weight"], params["0.bias"], strict=True)
        ]
        want[place] = params["2.weight"].astype(np.float64) @ inner + params["2.bias"]
    assert (np.abs(want).max() > 1) and (want.min() < 0)
    np.testing.assert_allclose(process_head.apply(params, hidden_BSH), want, atol=1e-5)


def test_linear_by_hand():
    # x = (1, 2): wrong = 1·3 + 2·(−1) + .5 = 1.5, right = 1·0 + 2·2 − 1 = 3.
    params = {"weight": np.float32([[3, -1], [0, 2]]), "bias": np.float32([0.5, -1])}
    got = process_head.apply(params, np.float32([[1, 2]]))
    np.testing.assert_allclose(got, [[1.5, 3.0]])


@pytest.mark.parametrize("kind", process_head.HEADS)
def test_a_fresh_head_says_one_half_and_is_the_same_for_a_key(kind):
    one, same = (process_head.init(kind, H, jax.random.key(3)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert {name: x.shape for name, x in one.items()} == process_head.shapes(kind, H)
    hidden = np.random.default_rng(2).standard_normal((5, H)).astype(np.float16)
    logits = process_head.apply(one, hidden)
    assert logits.dtype == np.float32 and not logits.any()
    if kind == "mlp":  # the inner layer is drawn: it would otherwise never learn
        assert np.ptp(one["0.weight"]) > H**-0.5
        assert np.abs(one["0.weight"]).max() <= H**-0.5
        assert (one["0.weight"] != process_head.init(kind, H, jax.random.key(4))["0.weight"]).all()


def test_an_unknown_head_is_refused():
    with pytest.raises(ConfigError, match="'deep'; wanted: one of linear, mlp"):
        process_head.shapes("deep", H)
