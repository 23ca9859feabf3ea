"""Chunked head scores against the plain formula: values, gradients, and no [N, V] array."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import MeshSettings, make_mesh
from distill_jax.models.head import chunks as head_chunks
from distill_jax.models.head.scores import TokenScores, head_scores

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

N, D, V, VALID = 13, 8, 20, 17
T, ALPHAS = 0.7, (1.0, 0.7, 2.5)
OUTPUTS = ("logit_N", "lse_AN", "logp_N", "entropy_N")


def arrays(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((N, D)).astype(dtype)
    head = (rng.standard_normal((V, D)) / 2).astype(dtype)
    return hidden, head, rng.integers(0, VALID, N).astype(np.int32)


def naive(hidden, head, targets):
    logits = (hidden.astype(jnp.float32) @ head.astype(jnp.float32).T)[:, :VALID]
    logp = jax.nn.log_softmax(logits / T)
    return TokenScores(
        logit_N=logits[jnp.arange(N), targets],
        lse_AN=jnp.stack([jax.nn.logsumexp(logits / a, axis=1) for a in ALPHAS]),
        logp_N=logp[jnp.arange(N), targets],
        entropy_N=-(jnp.exp(logp) * logp).sum(1),
    )


def ours(hidden, head, targets, chunk=None, entropy=True):
    return head_scores(
        hidden,
        head,
        targets,
        temperature=T,
        alphas=ALPHAS,
        valid_vocab=VALID,
        entropy=entropy,
        chunk_tokens=chunk,
    )


def weighted(scores, names):
    """A scalar with another weight for every number of the named outputs."""
    total = 0.0
    for index, name in enumerate(names):
        x = getattr(scores, name)
        total += (x * np.random.default_rng(index).standard_normal(x.shape, np.float32)).sum()
    return total


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
@pytest.mark.parametrize("jit", [True, False])
def test_values(chunk, jit):
    run = jax.jit(ours, static_argnums=3) if jit else ours
    got, expected = run(*arrays(), chunk), jax.jit(naive)(*arrays())
    for name in OUTPUTS:
        np.testing.assert_allclose(
            getattr(got, name), getattr(expected, name), atol=1e-5, err_msg=name
        )


EACH = [*[(n,) for n in OUTPUTS], OUTPUTS]


def gradients(scores, wrt):
    """Of hidden states, head or both (`wrt`), for each set of outputs that a loss may take."""
    hidden, head, targets = arrays(1)

    def run(hidden, head):
        return [
            jax.grad(lambda h, w, n=names: weighted(scores(h, w, targets), n), wrt)(hidden, head)
            for names in EACH
        ]

    return jax.jit(run)(hidden, head)


@pytest.fixture(scope="module")
def naive_gradients():
    return gradients(naive, (0, 1))


@pytest.mark.parametrize("chunk", [None, 5])  # one chunk; three, the last one padded
@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
def test_gradients(naive_gradients, chunk, wrt):
    # With many chunks a frozen head takes the gradient along in the forward pass: another path.
    got = gradients(lambda *x: ours(*x, chunk), wrt)
    for names, mine, both in zip(EACH, got, naive_gradients, strict=True):
        expected = [both[i] for i in wrt]
        for g, e in zip(mine, expected, strict=True):
            np.testing.assert_allclose(g, e, atol=1e-5, rtol=1e-5, err_msg=str(names))


def test_outputs_not_asked_for():
    scores = jax.eval_shape(head_scores, *arrays())
    assert scores.entropy_N is None
    assert scores.lse_AN.shape == (0, N)
    # entropy of a uniform distribution over 17 of 20 rows: ln 17
    hidden, head, targets = arrays()
    flat = jax.jit(ours)(0 * hidden, head, targets)
    np.testing.assert_allclose(flat.entropy_N, np.log(17), rtol=1e-6)
    np.testing.assert_allclose(flat.lse_AN, np.log(17), rtol=1e-6)


@pytest.mark.parametrize("chunk", [None, 4])
def test_padding_rows_never_enter(chunk):
    hidden, head, targets = arrays()
    other = head.copy()
    other[VALID:] = 1e3  # would win every logsumexp

    @jax.jit
    def run(w):
        def loss(h, w):
            return weighted(ours(h, w, targets, chunk), OUTPUTS)

        # Of a frozen head too, which is another path.
        return jax.value_and_grad(loss)(hidden, w), jax.grad(loss, 1)(hidden, w)

    (one, grad), (two, _) = run(head), run(other)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert not np.any(np.asarray(grad)[VALID:])


def test_soft_values_far_from_zero():
    # Logits near ±3000: the peak is taken out before any exp; nothing overflows or vanishes.
    hidden, head, targets = arrays()

    @jax.jit
    def run(h):
        scores = ours(h, head, targets, 4)
        return scores, jax.grad(lambda h: weighted(ours(h, head, targets, 4), OUTPUTS))(h)

    scores, grad = run(hidden * np.float32(1e3))
    expected = jax.jit(naive)(hidden * np.float32(1e3), head, targets)
    np.testing.assert_allclose(scores.lse_AN, expected.lse_AN, rtol=1e-5)
    np.testing.assert_allclose(scores.entropy_N, expected.entropy_N, atol=1e-4)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("chunk", [None, 4])
def test_bfloat16_inputs_accumulate_in_float32(chunk):
    hidden, head, targets = arrays(2, jnp.bfloat16)

    @functools.partial(jax.jit, static_argnums=0)
    def run(of, h, w):
        grads = [jax.grad(lambda *x: of(*x, targets).logp_N.sum(), wrt)(h, w) for wrt in (0, 1)]
        return of(h, w, targets), grads

    exact = (hidden.astype(np.float32), head.astype(np.float32))
    scores, grads = run(lambda *x: ours(*x, chunk), hidden, head)
    expected, right = run(naive, *exact)
    assert scores.logit_N.dtype == scores.lse_AN.dtype == scores.logp_N.dtype == jnp.float32
    # Equal to float32 arithmetic on the same rounded inputs, far finer than a bf16 step.
    np.testing.assert_allclose(scores.logit_N, expected.logit_N, atol=1e-5)
    np.testing.assert_allclose(scores.lse_AN, expected.lse_AN, atol=1e-5)
    for grad, want in zip(grads, right, strict=True):
        assert grad.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(grad, np.float32), want, atol=0.05, rtol=0.02)


def test_nearly_certain_tokens_keep_their_gradient_in_bfloat16():
    # p = 1 − 1e-3: the gradient is ~1e-3 of a head row; p alone would round to 1 in bfloat16.
    hidden, head = np.zeros((4, 8), jnp.bfloat16), np.zeros((5, 8), jnp.bfloat16)
    hidden[:, 0], head[0, 0], head[1:, 1] = 8.0, 1.0, 1.0
    targets = np.zeros((4,), np.int32)

    def grad(chunk):
        run = lambda h: head_scores(h, head, targets, chunk_tokens=chunk).logp_N.sum()  # noqa: E731
        return np.asarray(jax.jit(jax.grad(run))(hidden), np.float32)

    rest = 4 / (np.exp(8.0) + 4)  # all other tokens
    for found in map(grad, (None, 2)):
        np.testing.assert_allclose(found[:, 0], rest, rtol=0.02)
        np.testing.assert_allclose(found[:, 1], -rest, rtol=0.02)


def test_mixed_dtypes_follow_the_hidden_states():
    hidden, head, targets = arrays(3)
    low = hidden.astype(jnp.bfloat16)
    grad = jax.jit(jax.grad(lambda w: ours(low, w, targets, 4).logp_N.sum()))(head)
    assert grad.dtype == jnp.float32 and np.all(np.isfinite(grad))


# --- under other transformations -----------------------------------------------------------------


def test_under_remat_and_scan():
    hidden, head, targets = arrays()

    def loss(scores, h, w):
        def body(carry, row):
            return carry + weighted(scores(row, w, targets), OUTPUTS[:4]), None

        stacked = jnp.stack([h, 2 * h])
        return jax.lax.scan(jax.checkpoint(body), 0.0, stacked)[0]

    got = jax.jit(jax.grad(lambda h, w: loss(lambda *a: ours(*a, 4), h, w), (0, 1)))(hidden, head)
    expected = jax.jit(jax.grad(lambda h, w: loss(naive, h, w), (0, 1)))(hidden, head)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "shape, chunk", [((2, 4, 1), None), ((2, 4, 1), 16), ((1, 2, 4), None), ((1, 2, 4), 16)]
)
def test_on_a_mesh_equals_one_device(shape, chunk):
    assert len(jax.devices()) >= 8  # forced by conftest.py
    mesh = make_mesh(MeshSettings(*shape))
    rng = np.random.default_rng(0)
    hidden, head = (rng.standard_normal(s, np.float32) for s in ((64, 8), (24, 8)))
    targets = rng.integers(0, 24, 64)

    def loss(h, w):
        scores = head_scores(h, w, targets, entropy=True, chunk_tokens=chunk)
        return (scores.logp_N * np.arange(64)).sum() + scores.entropy_N.sum()

    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(hidden, head)
    placed = (
        jax.device_put(hidden, NamedSharding(mesh, PartitionSpec(("data", "fsdp")))),
        jax.device_put(head, NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))),
    )
    got = jax.jit(jax.value_and_grad(loss, (0, 1)))(*placed)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=2e-5, atol=2e-4), got, expected)


# --- memory --------------------------------------------------------------------------------------

BIG_N, BIG_V, BIG_D, CHUNK = 1024, 4096, 16, 64


def compiled(scores, wrt):
    shapes = (
        jax.ShapeDtypeStruct((BIG_N, BIG_D), jnp.float32),
        jax.ShapeDtypeStruct((BIG_V, BIG_D), jnp.float32),
        jax.ShapeDtypeStruct((BIG_N,), jnp.int32),
    )

    def loss(h, w, t):
        s = scores(h, w, t)
        return s.logp_N.sum() + s.lse_AN.sum() + s.entropy_N.sum()

    return jax.jit(jax.value_and_grad(loss, wrt)).lower(*shapes).compile()


def extents(text):
    """Element counts of all arrays that a compiled program names."""
    return {
        int(np.prod([int(n) for n in s.split(",")])) for s in re.findall(r"\w\[([\d,]+)\]", text)
    }


@pytest.mark.parametrize("wrt", [0, 1, (0, 1)])
def test_vocabulary_axis_never_exists_for_the_batch(wrt):
    def chunked(h, w, t):
        return head_scores(h, w, t, alphas=(2.0,), entropy=True, chunk_tokens=CHUNK)

    def whole(h, w, t):
        return head_scores(h, w, t, alphas=(2.0,), entropy=True, chunk_tokens=BIG_N)

    ours_, plain = compiled(chunked, wrt), compiled(whole, wrt)
    full = BIG_N * BIG_V
    # The search and the measure do find the array where it exists.
    assert max(extents(plain.as_text())) >= full
    assert plain.memory_analysis().temp_size_in_bytes >= 4 * full
    assert max(extents(ours_.as_text())) < full / 4
    assert ours_.memory_analysis().temp_size_in_bytes < 4 * full / 2
    # A few arrays of one chunk, and what is kept for each token and each row of the head.
    budget = 4 * (8 * CHUNK * BIG_V + 8 * BIG_N * BIG_D + 6 * BIG_V * BIG_D)
    assert ours_.memory_analysis().temp_size_in_bytes < budget


def test_frozen_head_costs_two_matmuls_a_chunk():
    # Logits and the gradient; unused outputs' gradients are removed as dead code.
    def count(chunk, entropy):
        def loss(h, w, t):
            s = head_scores(h, w, t, entropy=entropy, chunk_tokens=chunk)
            return s.logp_N.sum(), s.entropy_N

        hidden, head, targets = arrays()
        run = jax.jit(jax.grad(loss, has_aux=True)).lower(hidden, head, targets).compile()
        return len(re.findall(r" = \S+ dot\(|gemm|matmul\(", run.as_text()))

    assert count(4, False) == count(4, True) == 2


def test_default_chunks(monkeypatch):
    monkeypatch.setattr(head_chunks, "CHUNK_ELEMENTS", 100)
    of = head_chunks.cut_of
    assert of(10, 10, None) == (1, 1)
    assert of(30, 10, None) == (3, 1)
    assert of(35, 10, None) == (5, 1)  # at least 4; 5 divides, so nothing is padded
    assert of(13, 10, None) == (2, 1)  # no divisor near: padded
    assert of(7, 1000, None) == (7, 1)  # a row over the budget still goes alone
    assert of(30, 10, None, 3) == (1, 3)  # a budget for each of three devices
    assert of(66, 10, None, 2) == (4, 2)  # 66 has the divisor 6, but each device has 33: padded
    assert of(31, 10, None, 2) == (4, 1)  # of no even split


@pytest.mark.parametrize(
    "tokens,cut", itertools.product([6, 12, 21], [(1, 1), (2, 1), (3, 3), (7, 1), (5, 3)])
)
def test_split_and_join_are_inverse(tokens, cut):
    cut = head_chunks.Cut(*cut)
    x = np.arange(2.0 * tokens, dtype=np.float32).reshape(tokens, 2)
    run = jax.jit(lambda x: head_chunks.join(head_chunks.split(x, cut), cut, tokens))
    np.testing.assert_array_equal(run(x), x)


@pytest.mark.parametrize("own", [6, 7])
def test_a_chunk_holds_as_many_tokens_of_each_device(own):
    device_N = np.repeat(np.arange(3), own)
    parts = head_chunks.split(device_N + 1, head_chunks.Cut(2, 3))
    of_each = np.asarray(parts).reshape(2, 3, -1)  # a chunk is split over the devices again
    real = of_each > 0
    assert (of_each == np.arange(1, 4)[:, None])[real].all() and real.sum() == 3 * own


@pytest.mark.parametrize(
    "bad",
    [
        dict(temperature=0.0),
        dict(alphas=(1.0, -1.0)),
        dict(valid_vocab=V + 1),
        dict(valid_vocab=0),
        dict(chunk_tokens=0),
    ],
)
def test_impossible_settings(bad):
    with pytest.raises(ConfigError, match="wanted"):
        head_scores(*arrays(), **bad)
