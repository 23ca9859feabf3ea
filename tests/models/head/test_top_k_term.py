"""Top-k and tail through the student's head: against the plain formula, and at k = V the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import top_k_tail_divergence
from distill_jax.models.head.loss import head_loss
from distill_jax.models.head.terms import divergence, top_k_divergence
from distill_jax.models.head.top_k import TopK, head_top_k

pytestmark = pytest.mark.mesh

N, VALID = 13, 17
CASES = [("forward", 0.5, 1.0), ("reverse", 0.5, 0.7), ("jsd", 0.3, 2.0)]


def arrays():
    keys = jax.random.split(jax.random.key(0), 5)
    # Rows of the heads beyond VALID are padding.
    student = jax.random.normal(keys[0], (N, 8)), jax.random.normal(keys[1], (20, 8)) / 2
    teacher = jax.random.normal(keys[2], (N, 6)), jax.random.normal(keys[3], (18, 6)) / 2
    return student, teacher, jax.random.normal(keys[4], (N,))


def naive(hidden, head, top, kind, beta, temperature):
    logq = jax.nn.log_softmax((hidden @ head.T)[:, :VALID] / temperature)
    listed = jnp.take_along_axis(logq, top.ids_XK, axis=1)
    tail = jnp.log1p(-jnp.exp(listed).sum(1))
    how = {"kind": kind, "beta": beta, "temperature": temperature}
    return top_k_tail_divergence(top.logp_XK, top.log_tail_X, listed, tail, **how)


@pytest.mark.parametrize(
    "kind,beta,temperature,chunk", [(*CASES[0], None), (*CASES[1], 4), (*CASES[2], 4)]
)
def test_value_and_gradients(kind, beta, temperature, chunk):
    student, teacher, weights = arrays()
    top = head_top_k(*teacher, 5, valid_vocab=VALID, temperature=temperature)

    def ours(hidden, head):
        how = {"kind": kind, "beta": beta, "temperature": temperature}
        term = top_k_divergence(top, weights, **how)
        total, (value,) = head_loss(hidden, head, [term], valid_vocab=VALID, chunk_tokens=chunk)
        return total, value

    def plain(hidden, head):
        value = naive(hidden, head, top, kind, beta, temperature)
        return (value * weights).sum(), value

    got, want = jax.jit(ours)(*student), plain(*student)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5), got, want)
    for wrt in (0, (0, 1)):
        got, want = (
            jax.jit(jax.grad(lambda h, w, f=f: f(h, w)[0], wrt))(*student) for f in (ours, plain)
        )
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5, rtol=1e-5), got, want)


@pytest.mark.parametrize("kind,beta,temperature", CASES)
def test_all_tokens_listed_is_the_whole_divergence_and_fewer_are_less(kind, beta, temperature):
    student, teacher, _ = arrays()
    how = {"kind": kind, "beta": beta, "temperature": temperature}

    def of(term):
        return lambda h, w: head_loss(h, w, [term], valid_vocab=VALID)

    def top(k):
        listed = head_top_k(*teacher, k, valid_vocab=VALID, temperature=temperature)
        return of(top_k_divergence(listed, jnp.ones(N), **how))

    whole = of(divergence(*teacher, jnp.ones(N), **how))

    got, want = (jax.value_and_grad(f, (0, 1), has_aux=True)(*student) for f in (top(VALID), whole))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=2e-5), got, want)
    (_, (all_,)), (_, (five,)), (_, (one,)) = (f(*student) for f in (whole, top(5), top(1)))
    assert np.all(one <= five + 1e-6) and np.all(five <= all_ + 1e-6)
    assert np.sum(five) < 0.99 * np.sum(all_)


def test_a_certain_teacher_keeps_its_reverse_divergence():
    """The teacher's tail is e^−40: as 1 − Σ of float32 it would stand at 1e-7, and 16 for 40."""
    teacher, student = jnp.array([[40.0, 0.0, 0.0, 0.0]]), jnp.array([[1.0, 1.0, 0.0, 0.0]])
    eye, one = jnp.eye(4), jnp.ones(1)
    how = {"kind": "reverse"}
    top = head_top_k(teacher, eye, 1)
    (listed, (got,)), (whole, _) = (
        head_loss(student, eye, [term])
        for term in (top_k_divergence(top, one, **how), divergence(teacher, eye, one, **how))
    )
    # Q: e/(2e+2), and a tail of .5 + 1/(2e+2) whose own spread alone is lost.
    q = np.exp([1.0, 1.0, 0.0, 0.0]) / (2 * np.e + 2)
    tail = q[1:].sum()
    want = q[0] * np.log(q[0]) + tail * (np.log(tail) - (np.log(3) - 40))
    np.testing.assert_allclose([listed, got[0]], want, rtol=1e-6)
    assert 0.98 * whole < listed < whole


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]
        ids = jnp.zeros((1024, 4), jnp.int32) + jnp.arange(4)

        def loss(h, w):
            top = TopK(ids, ids - 9.0, jnp.full(1024, -1.0))
            terms = [top_k_divergence(top, jnp.ones(1024))]
            return head_loss(h, w, terms, chunk_tokens=chunk)[0]

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 2 * temp_bytes(64)


@pytest.mark.parametrize("bad", [dict(temperature=0.0), dict(kind="jsd", beta=2.0)])
def test_impossible_settings(bad):
    _, teacher, weights = arrays()
    with pytest.raises(ConfigError):
        top_k_divergence(head_top_k(*teacher, 3), weights, **bad)
