"""Top-k and tail through the student's head: against the plain formula, and at k = V the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import top_k_tail_divergence
from distill_jax.models.head.listed import TopK
from distill_jax.models.head.loss import head_loss
from distill_jax.models.head.terms import divergence, top_k_divergence
from distill_jax.models.head.top_k import head_top_k

pytestmark = pytest.mark.mesh

N, VALID = 13, 17
CASES = [("forward", 0.5, 1.0), ("reverse", 0.5, 0.7), ("jsd", 0.3, 2.0)]


def arrays():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape, np.float32)

    # Rows of the heads beyond VALID are padding.
    return (draw(N, 8), draw(20, 8) / 2), (draw(N, 6), draw(18, 6) / 2), draw(N)


@functools.partial(jax.jit, static_argnums=(1, 2))
def listed(teacher, k, temperature):
    return head_top_k(*teacher, k, valid_vocab=VALID, temperature=temperature)


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
    top = listed(teacher, 5, temperature)

    def ours(hidden, head):
        how = {"kind": kind, "beta": beta, "temperature": temperature}
        term = top_k_divergence(top, weights, **how)
        total, (value,) = head_loss(hidden, head, [term], valid_vocab=VALID, chunk_tokens=chunk)
        return total, value

    def plain(hidden, head):
        value = naive(hidden, head, top, kind, beta, temperature)
        return (value * weights).sum(), value

    def run(of):
        def grads(*given):
            return [jax.grad(lambda h, w: of(h, w)[0], wrt)(*given) for wrt in (0, (0, 1))]

        return jax.jit(lambda *given: (of(*given), grads(*given)))(*student)

    got, want = run(ours), run(plain)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5, rtol=1e-5), got, want)


@pytest.mark.parametrize("kind,beta,temperature", CASES)
def test_all_tokens_listed_is_the_whole_divergence_and_fewer_are_less(kind, beta, temperature):
    student, teacher, _ = arrays()
    how = {"kind": kind, "beta": beta, "temperature": temperature}

    def of(term):
        return lambda h, w: head_loss(h, w, [term], valid_vocab=VALID)

    def top(k):
        return of(top_k_divergence(listed(teacher, k, temperature), np.ones(N), **how))

    whole = of(divergence(*teacher, np.ones(N), **how))

    @jax.jit
    def run(*given):
        both = [jax.value_and_grad(f, (0, 1), has_aux=True)(*given) for f in (top(VALID), whole)]
        return *both, top(5)(*given), top(1)(*given)

    got, want, (_, (five,)), (_, (one,)) = jax.tree.map(np.asarray, run(*student))
    all_ = want[0][1][0]
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-6, atol=2e-5), got, want)
    assert np.all(one <= five + 1e-6) and np.all(five <= all_ + 1e-6)
    assert np.sum(five) < 0.99 * np.sum(all_)


def test_a_certain_teacher_keeps_its_reverse_divergence():
    """The teacher's tail is e^−40: as 1 − Σ of float32 it would stand at 1e-7, and 16 for 40."""
    teacher, student = (
        np.array([x], np.float32) for x in ([40.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])
    )
    eye, one, how = np.eye(4, dtype=np.float32), np.ones(1), {"kind": "reverse"}

    @jax.jit
    def run(teacher, student):
        top = head_top_k(teacher, eye, 1)
        terms = top_k_divergence(top, one, **how), divergence(teacher, eye, one, **how)
        return [head_loss(student, eye, [term]) for term in terms]

    (listed, (got,)), (whole, _) = run(teacher, student)
    # Q: e/(2e+2), and a tail of .5 + 1/(2e+2) whose own spread alone is lost.
    q = np.exp([1.0, 1.0, 0.0, 0.0]) / (2 * np.e + 2)
    tail = q[1:].sum()
    want = q[0] * np.log(q[0]) + tail * (np.log(tail) - (np.log(3) - 40))
    np.testing.assert_allclose([listed, got[0]], want, rtol=1e-6)
    assert 0.98 * whole < listed < whole


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]
        ids = np.tile(np.arange(4, dtype=np.int32), (1024, 1))

        def loss(h, w):
            top = TopK(ids, ids - np.float32(9), np.full(1024, -1.0, np.float32))
            terms = [top_k_divergence(top, np.ones(1024))]
            return head_loss(h, w, terms, chunk_tokens=chunk)[0]

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 2 * temp_bytes(64)


@pytest.mark.parametrize("bad", [dict(temperature=0.0), dict(kind="jsd", beta=2.0)])
def test_impossible_settings(bad):
    top = TopK(np.zeros((1, 3), np.int32), np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(ConfigError):
        top_k_divergence(top, np.ones(1), **bad)
