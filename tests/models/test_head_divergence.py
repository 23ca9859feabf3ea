"""Chunked divergence of two heads against the plain formula, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels import divergence
from distill_jax.models.head_scores import head_divergence

N, VALID = 13, 17
CASES = [
    ("forward", 0.5, 1.0),
    ("reverse", 0.5, 0.7),
    ("jsd", 0.3, 2.0),
    ("jsd", 0.0, 1.5),
    ("jsd", 1.0, 1.5),
]


def arrays():
    keys = jax.random.split(jax.random.key(0), 5)
    # Student and teacher differ in width and in padding rows, as Qwen's sizes do.
    student = jax.random.normal(keys[0], (N, 8)), jax.random.normal(keys[1], (20, 8)) / 2
    teacher = jax.random.normal(keys[2], (N, 6)), jax.random.normal(keys[3], (18, 6)) / 2
    return student, teacher, jax.random.normal(keys[4], (N,))


def naive(student, teacher, kind, beta, temperature):
    p = (teacher[0] @ teacher[1].T)[:, :VALID]
    q = (student[0] @ student[1].T)[:, :VALID]
    if kind == "jsd":
        return divergence.jsd_beta(p, q, beta=beta, temperature=temperature)
    kernel = {"forward": divergence.forward_kl, "reverse": divergence.reverse_kl}[kind]
    return kernel(p, q, temperature=temperature)


def ours(student, teacher, kind, beta, temperature, chunk):
    return head_divergence(
        *student,
        *teacher,
        kind=kind,
        beta=beta,
        temperature=temperature,
        valid_vocab=VALID,
        chunk_tokens=chunk,
    )


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("kind,beta,temperature", CASES)
def test_value_and_gradients(kind, beta, temperature, chunk):
    student, teacher, weight = arrays()
    case = (kind, beta, temperature)
    value = jax.jit(lambda s, t: ours(s, t, *case, chunk))(student, teacher)
    np.testing.assert_allclose(value, naive(student, teacher, *case), atol=1e-5)

    def loss(scores, hidden, head, *more):
        return (scores((hidden, head), teacher, *case, *more) * weight).sum()

    # A frozen head takes the gradient along in the forward pass; a trained one computes twice.
    for wrt in (0, 1, (0, 1)):
        got = jax.jit(jax.grad(lambda h, w: loss(ours, h, w, chunk), wrt))(*student)
        expected = jax.jit(jax.grad(lambda h, w: loss(naive, h, w), wrt))(*student)
        jax.tree.map(
            lambda g, e: np.testing.assert_allclose(g, e, atol=1e-5, rtol=1e-5), got, expected
        )


def test_teacher_gets_no_gradient():
    student, teacher, _ = arrays()
    grads = jax.grad(lambda t: ours(student, t, "jsd", 0.5, 1.0, 4).sum())(teacher)
    assert not any(np.any(g) for g in grads)


def test_a_teacher_to_itself_is_zero():
    student, _, _ = arrays()
    value, grad = jax.value_and_grad(lambda s: ours(s, student, "reverse", 0.5, 2.0, None).sum())(
        student
    )
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0.0, atol=1e-5), grad)


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]

        def loss(h, w):
            run = head_divergence(h, w, h, w, kind="jsd", chunk_tokens=chunk)
            return run.sum()

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 2 * temp_bytes(64)


@pytest.mark.parametrize(
    "bad", [dict(), dict(valid_vocab=19), dict(valid_vocab=5, temperature=0.0)]
)
def test_impossible_settings(bad):
    student, teacher, _ = arrays()
    with pytest.raises(ConfigError):
        head_divergence(*student, *teacher, **bad)
