"""Top-k through the chunked head against log_softmax and lax.top_k over whole logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import special

from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import MeshSettings, batch_sharding, batch_shards, make_mesh
from distill_jax.kernels.divergence import top_k_tail_divergence
from distill_jax.models.head.top_k import head_top_k, listed_and_tail
from tests.models.head.gathers import gathered

pytestmark = pytest.mark.mesh

N, D, V, VALID = 13, 8, 24, 20
ONE = np.ones((1, 1), np.float32)


def arrays(dtype=np.float32):
    rng = np.random.default_rng(0)
    hidden, head = rng.standard_normal((N, D)), rng.standard_normal((V, D))
    head[VALID:] *= 50  # padding rows that would win
    return hidden.astype(dtype), head.astype(dtype)


@functools.partial(jax.jit, static_argnames=("k", "valid_vocab", "temperature", "mesh"))
def top_k(hidden, head, k, **how):
    return head_top_k(hidden, head, k, **how)


def oracle(hidden, head, k, temperature):
    logits = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)[:VALID].T
    logp = logits / temperature
    logp -= special.logsumexp(logp, axis=1, keepdims=True)
    order = np.argsort(-logp, axis=1, kind="stable")
    ids, rest = order[:, :k], np.take_along_axis(logp, order[:, k:], 1)
    tail = special.logsumexp(rest, axis=1) if k < VALID else np.full(len(logp), -1e30)
    return ids, np.take_along_axis(logp, ids, 1), tail


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (5, 3.0), (VALID, 0.5)])
def test_against_whole_logits(k, temperature, chunk):
    hidden, head = arrays()
    run = jax.jit(
        lambda *x: head_top_k(*x, k, valid_vocab=VALID, temperature=temperature, chunk_tokens=chunk)
    )
    ids, logp, tail = run(hidden, head)
    want_ids, want_logp, want_tail = oracle(hidden, head, k, temperature)
    assert (logp.dtype, ids.dtype, tail.dtype) == (jnp.float32, jnp.int32, jnp.float32)
    np.testing.assert_array_equal(ids, want_ids)
    np.testing.assert_allclose(logp, want_logp, atol=2e-5)
    np.testing.assert_allclose(tail, want_tail, rtol=1e-6, atol=2e-5)


def test_a_small_tail_is_not_lost():
    # 1 − Σ in float32 knows nothing below 6e-8; here the tail is e^−40 and e^−60 of the whole.
    head = np.array([[40.0], [0.0], [-20.0]], np.float32)
    for k, want in ((1, -40.0), (2, -60.0)):
        np.testing.assert_allclose(top_k(ONE, head, k).log_tail_X, want)


def test_by_hand():
    # Logits 0, ln 2, ln 5 at T 1: probabilities 1/8, 2/8, 5/8. At T 2 the roots of 1, 2, 5.
    hidden, head = ONE, np.log(np.array([[1.0], [2.0], [5.0]], np.float32))
    ids, logp, log_tail = top_k(hidden, head, 2)
    np.testing.assert_allclose(np.exp(logp), [[5 / 8, 2 / 8]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_tail), [1 / 8], rtol=1e-6)
    assert ids.tolist() == [[2, 1]]
    roots = np.sqrt([5.0, 2.0]) / np.sqrt([1.0, 2.0, 5.0]).sum()
    warm = top_k(hidden, head, 2, temperature=2.0).logp_XK[0]
    np.testing.assert_allclose(np.exp(warm), roots, rtol=1e-6)


def test_large_logits_do_not_cancel():
    # log(1 + e^−1) = .313262; as 1e4 less a logsumexp of 1e4 it was .313477.
    _, logp, tail = top_k(ONE, np.array([[1e4], [1e4 - 1], [0.0]], np.float32), 2)
    np.testing.assert_allclose(logp, [[-0.313262, -1.313262]], atol=1e-6)
    np.testing.assert_allclose(tail, -10000.313262, atol=2e-3)  # float32 steps by .001 there


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_on_a_mesh_no_logits_are_gathered(shape):
    mesh = make_mesh(MeshSettings(*shape))
    rng = np.random.default_rng(0)
    hidden, head = (rng.standard_normal(s, np.float32) for s in ((64, 16), (328, 16)))
    split, shards = NamedSharding(mesh, PartitionSpec("tensor", "fsdp")), batch_shards(mesh)
    placed = jax.device_put(hidden, batch_sharding(mesh)), jax.device_put(head, split)

    def run(mesh):
        how = {"valid_vocab": 320, "chunk_tokens": 16 // shards if mesh else 16, "mesh": mesh}
        return jax.jit(lambda *x: head_top_k(*x, 5, **how)).lower(*placed).compile()

    ours, plain = run(mesh), run(None)
    got, want = ours(*placed), top_k(hidden, head, 5, valid_vocab=320)
    np.testing.assert_array_equal(got.ids_XK, want.ids_XK)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5), got[1:], want[1:])
    assert not gathered(ours.as_text(), vocab=320, tokens=16)
    # The search finds them where they are: XLA's own way.
    assert gathered(plain.as_text(), vocab=320, tokens=16)


def test_rows_that_do_not_divide_by_the_devices():
    mesh, (hidden, head) = make_mesh(MeshSettings(8, 1, 1)), arrays()
    got = top_k(hidden, head, 3, valid_vocab=VALID, mesh=mesh)
    want = top_k(hidden, head, 3, valid_vocab=VALID)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5), got, want)


def test_equal_logits_give_the_lower_id_first():
    ids, logp, _ = top_k(ONE, np.array([[0.0], [3.0], [1.0], [3.0]], np.float32), 3)
    assert ids.tolist() == [[1, 3, 2]] and logp[0, 0] == logp[0, 1]


def test_bfloat16_states_are_summed_in_float32():
    hidden, head = arrays(jnp.bfloat16)
    ids, logp, _ = top_k(hidden, head, 4, valid_vocab=VALID)
    want_ids, want_logp, _ = oracle(hidden, head, 4, 1.0)
    np.testing.assert_array_equal(ids, want_ids)
    # Logits rounded to bfloat16 would be off by up to 2⁻⁷ at 4.
    np.testing.assert_allclose(logp, want_logp, atol=2e-5)


def test_no_array_has_the_vocabulary_beside_all_tokens():
    hidden, head = arrays()

    def shapes(jaxpr):
        for eqn in jaxpr.eqns:
            for value in (*eqn.invars, *eqn.outvars):
                yield getattr(value.aval, "shape", ())
            for inner in jax.core.jaxprs_in_params(eqn.params):
                yield from shapes(inner)

    def largest(chunk):
        closed = jax.make_jaxpr(lambda *x: head_top_k(*x, 3, chunk_tokens=chunk))(hidden, head)
        return max(shape[0] for shape in shapes(closed.jaxpr) if len(shape) == 2 and V in shape[1:])

    assert largest(None) == N and largest(4) <= 4


def test_there_is_no_gradient():
    hidden, head = arrays()
    slope = jax.jit(jax.grad(lambda *x: head_top_k(*x, 3).logp_XK.sum(), argnums=(0, 1)))
    grads = slope(hidden, head)
    assert not any(np.asarray(g).any() for g in grads)


def test_it_feeds_the_top_k_tail_divergence():
    """With k = V − 1 the tail is one token: the value is the whole KL at T, times T²."""
    (teacher, head), T = arrays(), 2.0
    student = teacher + np.float32(0.3)
    logits = [(x @ head[:VALID].T) / T for x in (teacher, student)]

    @jax.jit
    def run(teacher, student_logits):
        top = head_top_k(teacher, head, VALID - 1, valid_vocab=VALID, temperature=T)
        listed = listed_and_tail(student_logits, top.ids_XK)
        return top_k_tail_divergence(*top[1:], *listed, temperature=T)

    got = run(teacher, logits[1])
    p, q = (special.log_softmax(np.float64(x), axis=1) for x in logits)
    want = T**2 * np.sum(np.exp(p) * (p - q), axis=1)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"k": V + 1}, {"k": 2, "temperature": 0.0}, {"k": 9, "valid_vocab": 8}]
)
def test_what_is_impossible_is_refused(wrong):
    with pytest.raises(ConfigError):
        head_top_k(*arrays(), **wrong)
