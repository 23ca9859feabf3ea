"""Chunked comparison of two heads against plain formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.models.head.comparison import head_comparison
from distill_jax.models.head.loss import head_loss
from distill_jax.models.head.terms import divergence

N, VALID = 13, 17


def arrays():
    rng = np.random.default_rng(0)
    student = rng.standard_normal((N, 8)), rng.standard_normal((20, 8)) / 2
    # Another width, and more rows than the student has.
    teacher = rng.standard_normal((N, 6)), rng.standard_normal((26, 6)) / 2
    return tuple(tuple(x.astype(np.float32) for x in side) for side in (student, teacher))


def softmax(hidden, head):
    logits = (hidden.astype(np.float64) @ head.astype(np.float64).T)[:, :VALID]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def oracle(p, q):
    def kl(a, b):
        return np.sum(a * np.log(a / b), axis=1)

    norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    m = (p + q) / 2
    same = (p.argmax(axis=1) == q.argmax(axis=1)).astype(float)
    return kl(p, q), kl(q, p), kl(p, m) / 2 + kl(q, m) / 2, np.sum(p * q, axis=1) / norms, same


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
def test_against_the_plain_formulas(chunk):
    student, teacher = arrays()
    run = jax.jit(lambda s, t: head_comparison(*s, *t, valid_vocab=VALID, chunk_tokens=chunk))
    got = run(student, teacher)
    for x, expected in zip(got, oracle(softmax(*teacher), softmax(*student)), strict=True):
        assert x.shape == (N,) and x.dtype == jnp.float32
        np.testing.assert_allclose(x, expected, atol=1e-5)
    assert 0 < np.sum(got.top1_agreement) < N  # both occur


def test_divergences_are_those_of_the_training_term():
    student, teacher = arrays()
    got = head_comparison(*student, *teacher, valid_vocab=VALID)
    for x, kind in ((got.forward_kl, "forward"), (got.reverse_kl, "reverse"),
                    (got.jensen_shannon, "jsd")):  # fmt: skip
        term = divergence(*teacher, jnp.ones(N), kind=kind)
        _, (expected,) = head_loss(*student, [term], valid_vocab=VALID)
        np.testing.assert_allclose(x, expected, atol=1e-6)


def test_values_by_hand():
    # One token; the states are the logits, ln of P = [.5, .5] and Q = [.9, .1].
    p, q, eye = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]]), np.eye(2)
    got = head_comparison(*(jnp.asarray(x, jnp.float32) for x in (q, eye, p, eye)))
    # Cosine: .5/√(.5·.82).
    expected = [0.51083, 0.36806, 0.10175, 0.5 / np.sqrt(0.5 * 0.82), 1.0]
    np.testing.assert_allclose([x[0] for x in got], expected, atol=1e-5)


def test_certain_and_contrary_distributions_stay_finite():
    eye = jnp.eye(2)
    one, other = jnp.array([[200.0, -200.0]]), jnp.array([[-200.0, 200.0]])
    got = [float(x[0]) for x in head_comparison(other, eye, one, eye)]
    np.testing.assert_allclose(got, [400.0, 400.0, np.log(2), 0.0, 0.0], atol=1e-5)


def test_a_teacher_to_itself():
    student, _ = arrays()
    got = head_comparison(*student, *student, chunk_tokens=5)
    np.testing.assert_allclose(got.forward_kl, 0.0, atol=1e-6)
    np.testing.assert_allclose(got.reverse_kl, 0.0, atol=1e-6)
    np.testing.assert_allclose(got.jensen_shannon, 0.0, atol=1e-6)
    np.testing.assert_allclose(got.cosine, 1.0, atol=1e-6)
    np.testing.assert_array_equal(got.top1_agreement, 1.0)


def test_padding_rows_never_enter():
    (hidden, head), teacher = arrays()
    before = head_comparison(hidden, head, *teacher, valid_vocab=VALID)
    loud = head.copy(), teacher[1].copy()
    loud[0][VALID:], loud[1][VALID:] = 1e4, -1e4
    after = head_comparison(hidden, loud[0], teacher[0], loud[1], valid_vocab=VALID)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]
        run = jax.jit(lambda h, w: head_comparison(h, w, h, w, chunk_tokens=chunk))
        return run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 4 * temp_bytes(16)


@pytest.mark.parametrize("bad", [{}, {"valid_vocab": 21}, {"valid_vocab": 5, "chunk_tokens": 0}])
def test_impossible_settings(bad):
    student, teacher = arrays()
    with pytest.raises(ConfigError):
        head_comparison(*student, *teacher, **bad)
