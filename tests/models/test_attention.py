import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from distill_jax.models.attention import attention
from distill_jax.models.layers import silu_gate


def _inputs(batch=2, time=6, heads=4, kv_heads=2, size=8):
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (batch, time, heads, size))
    k = jax.random.normal(keys[1], (batch, time, kv_heads, size))
    v = jax.random.normal(keys[2], (batch, time, kv_heads, size))
    return q, k, v


def _oracle(q, k, v, window):
    """Loops over rows, heads, queries and keys, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, time, heads, size = q.shape
    out = np.zeros((batch, time, heads, size))
    for b in range(batch):
        for h in range(heads):
            kv = h // (heads // k.shape[2])
            for i in range(time):
                seen = [j for j in range(i + 1) if window is None or i - j < window]
                scores = np.array([q[b, i, h] @ k[b, j, kv] for j in seen]) / np.sqrt(size)
                weights = np.exp(scores - scores.max())
                out[b, i, h] = weights / weights.sum() @ v[b, seen, kv]
    return out.reshape(batch, time, heads * size)


@pytest.mark.parametrize("implementation", ["products", "xla"])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("traced", [False, True])
def test_attention_equals_loops(implementation, window, traced):
    q, k, v = _inputs()
    given = jnp.asarray(window or 2**30) if traced else window
    got = attention(q, k, v, window=given, implementation=implementation)
    np.testing.assert_allclose(got, _oracle(q, k, v, window), atol=2e-6)


# Rows of segments of 1, 3 and 2 positions, and of 4 and 2.
SEGMENTS = np.array([[1, 2, 2, 2, 3, 3], [1, 1, 1, 1, 0, 0]], np.int32)
RUNS = [(0, 0, 1), (0, 1, 4), (0, 4, 6), (1, 0, 4), (1, 4, 6)]


@pytest.mark.parametrize("implementation", [None, "xla"])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("traced", [False, True])
def test_a_segment_attends_as_if_it_were_alone(implementation, window, traced):
    q, k, v = _inputs()
    given = jnp.asarray(window or 2**30) if traced else window
    how = {"window": given, "segment_BT": SEGMENTS, "implementation": implementation}
    got = np.asarray(attention(q, k, v, **how))
    for row, start, end in RUNS:
        at = slice(row, row + 1), slice(start, end)
        np.testing.assert_allclose(got[at], _oracle(q[at], k[at], v[at], window), atol=2e-6)


@pytest.mark.parametrize("implementation", [None, "xla"])
def test_gradients_of_segments_equal_those_of_each_alone(implementation):
    q, k, v = _inputs()
    weight = jax.random.normal(jax.random.key(9), (2, 6, 32))

    def whole(q, k, v):
        out = attention(q, k, v, segment_BT=SEGMENTS, implementation=implementation)
        return jnp.sum(out * weight)

    def apart(q, k, v):
        sums = []
        for row, start, end in RUNS:
            at = slice(row, row + 1), slice(start, end)
            out = attention(q[at], k[at], v[at], implementation=implementation)
            sums.append(jnp.sum(out * weight[at]))
        return sum(sums)

    for got, want in zip(*(jax.grad(f, (0, 1, 2))(q, k, v) for f in (whole, apart)), strict=True):
        np.testing.assert_allclose(got, want, atol=5e-6)


@pytest.mark.parametrize("heads,kv_heads", [(4, 4), (4, 1), (6, 2)])
def test_groups_read_their_kv_head(heads, kv_heads):
    q, k, v = _inputs(heads=heads, kv_heads=kv_heads)
    np.testing.assert_allclose(attention(q, k, v), _oracle(q, k, v, None), atol=2e-6)


@pytest.mark.parametrize("window", [None, 2])
def test_gradients_equal_those_of_the_plain_formula(window):
    q, k, v = _inputs()
    weight = jax.random.normal(jax.random.key(9), (2, 6, 32))

    def loss(implementation):
        def f(q, k, v):
            out = attention(q, k, v, window=window, implementation=implementation)
            return jnp.sum(out * weight)

        return jax.grad(f, argnums=(0, 1, 2))(q, k, v)

    for got, want in zip(loss("products"), loss("xla"), strict=True):
        np.testing.assert_allclose(got, want, atol=5e-6)


def test_gradients_in_bfloat16_have_the_inputs_dtype():
    given = [x.astype(jnp.bfloat16) for x in _inputs()]
    grads = jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), (0, 1, 2))(*given)
    wanted = jax.grad(lambda *x: attention(*x).sum(), (0, 1, 2))(*_inputs())
    for got, want in zip(grads, wanted, strict=True):
        assert got.dtype == jnp.bfloat16
        # Eight bits, and sums of at most six such products.
        np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.05)


def test_large_scores_do_not_overflow():
    q, k, v = _inputs()
    got = attention(q * 1e3, k * 1e3, v)
    grad = jax.grad(lambda q: attention(q * 1e3, k * 1e3, v).sum())(q)
    assert np.isfinite(got).all() and np.isfinite(grad).all()


def test_silu_gate_value_and_gradient():
    gate, up = jnp.array([0.0, 1.0, -2.0]), jnp.array([3.0, 2.0, 1.0])
    # silu(1) = 1/(1+e^-1) = .7310586; silu(-2) = -2·.1192029 = -.2384058
    np.testing.assert_allclose(silu_gate(gate, up), [0.0, 1.4621172, -0.2384058], rtol=1e-6)
    check_grads(silu_gate, (gate, up), order=1, modes=["rev"], rtol=1e-2)
