"""Top-k and tail through the student's head: against the plain formula, and at k = V the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import top_k_tail_divergence
from distill_jax.models.head_scores import head_divergence
from distill_jax.models.head_top_k import head_top_k
from distill_jax.models.head_top_k_divergence import head_top_k_divergence

N, VALID = 13, 17
CASES = [("forward", 0.5, 1.0), ("reverse", 0.5, 0.7), ("jsd", 0.3, 2.0)]


def arrays():
    keys = jax.random.split(jax.random.key(0), 5)
    # Rows of the heads beyond VALID are padding.
    student = jax.random.normal(keys[0], (N, 8)), jax.random.normal(keys[1], (20, 8)) / 2
    teacher = jax.random.normal(keys[2], (N, 6)), jax.random.normal(keys[3], (18, 6)) / 2
    return student, teacher, jax.random.normal(keys[4], (N,))


def naive(hidden, head, ids, teacher_logp, kind, beta, temperature):
    logq = jax.nn.log_softmax((hidden @ head.T)[:, :VALID] / temperature)
    listed = jnp.take_along_axis(logq, ids, axis=1)
    how = {"kind": kind, "beta": beta, "temperature": temperature}
    return top_k_tail_divergence(teacher_logp, listed, **how)


@pytest.mark.parametrize(
    "kind,beta,temperature,chunk", [(*CASES[0], None), (*CASES[1], 4), (*CASES[2], 4)]
)
def test_value_and_gradients(kind, beta, temperature, chunk):
    student, teacher, weight = arrays()
    logp, ids = head_top_k(*teacher, 5, valid_vocab=VALID, temperature=temperature)

    def ours(hidden, head):
        how = {"kind": kind, "beta": beta, "temperature": temperature}
        how |= {"valid_vocab": VALID, "chunk_tokens": chunk}
        return head_top_k_divergence(hidden, head, ids, logp, **how)

    def plain(hidden, head):
        return naive(hidden, head, ids, logp, kind, beta, temperature)

    np.testing.assert_allclose(jax.jit(ours)(*student), plain(*student), atol=1e-5)
    # A frozen head takes the gradient along in the forward pass; a trained one computes twice.
    for wrt in (0, (0, 1)):
        got, want = (
            jax.jit(jax.grad(lambda h, w, f=f: (f(h, w) * weight).sum(), wrt))(*student)
            for f in (ours, plain)
        )
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5, rtol=1e-5), got, want)


@pytest.mark.parametrize("kind,beta,temperature", CASES)
def test_all_tokens_listed_is_the_whole_divergence_and_fewer_are_less(kind, beta, temperature):
    student, teacher, _ = arrays()
    how = {"kind": kind, "beta": beta, "temperature": temperature, "valid_vocab": VALID}

    def top(k):
        logp, ids = head_top_k(*teacher, k, valid_vocab=VALID, temperature=temperature)
        return lambda h, w: head_top_k_divergence(h, w, ids, logp, **how)

    def whole(h, w):
        return head_divergence(h, w, *teacher, **how)

    np.testing.assert_allclose(top(VALID)(*student), whole(*student), atol=2e-5)
    got, want = (
        jax.grad(lambda h, w, f=f: f(h, w).sum(), (0, 1))(*student) for f in (top(VALID), whole)
    )
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=2e-5), got, want)
    five, one = top(5)(*student), top(1)(*student)
    assert np.all(one <= five + 1e-6) and np.all(five <= whole(*student) + 1e-6)
    assert np.sum(five) < 0.99 * np.sum(whole(*student))


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]
        ids = jnp.zeros((1024, 4), jnp.int32) + jnp.arange(4)

        def loss(h, w):
            return head_top_k_divergence(h, w, ids, ids - 9.0, chunk_tokens=chunk).sum()

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 2 * temp_bytes(64)


@pytest.mark.parametrize(
    "bad", [dict(valid_vocab=21), dict(temperature=0.0), dict(kind="jsd", beta=2.0)]
)
def test_impossible_settings(bad):
    student, teacher, _ = arrays()
    logp, ids = head_top_k(*teacher, 3)
    with pytest.raises(ConfigError):
        head_top_k_divergence(*student, ids, logp, **bad)
