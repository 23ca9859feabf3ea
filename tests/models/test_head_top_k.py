"""Top-k through the chunked head against log_softmax and lax.top_k over whole logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import log_tail, top_k_tail_divergence
from distill_jax.models.head_scores import head_scores
from distill_jax.models.head_top_k import head_top_k

N, D, V, VALID = 13, 8, 24, 20


def arrays(dtype=np.float32):
    rng = np.random.default_rng(0)
    hidden, head = rng.standard_normal((N, D)), rng.standard_normal((V, D))
    head[VALID:] *= 50  # padding rows that would win
    return jnp.asarray(hidden, dtype), jnp.asarray(head, dtype)


def oracle(hidden, head, k, temperature):
    logits = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)[:VALID].T
    logp = jax.nn.log_softmax(jnp.asarray(logits / temperature, jnp.float32))
    return jax.lax.top_k(logp, k)


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (5, 3.0), (VALID, 0.5)])
def test_against_whole_logits(k, temperature, chunk):
    hidden, head = arrays()
    run = jax.jit(
        lambda *x: head_top_k(*x, k, valid_vocab=VALID, temperature=temperature, chunk_tokens=chunk)
    )
    logp, ids = run(hidden, head)
    want_logp, want_ids = oracle(hidden, head, k, temperature)
    assert (logp.dtype, ids.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(ids, want_ids)
    np.testing.assert_allclose(logp, want_logp, atol=2e-5)


def test_by_hand():
    # Logits 0, ln 2, ln 5 at T 1: probabilities 1/8, 2/8, 5/8. At T 2 the roots of 1, 2, 5.
    hidden, head = jnp.ones((1, 1)), jnp.log(jnp.array([[1.0], [2.0], [5.0]]))
    logp, ids = head_top_k(hidden, head, 2)
    np.testing.assert_allclose(np.exp(logp), [[5 / 8, 2 / 8]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_tail(logp)), [1 / 8], rtol=1e-5)
    assert ids.tolist() == [[2, 1]]
    roots = np.sqrt([5.0, 2.0]) / np.sqrt([1.0, 2.0, 5.0]).sum()
    warm = head_top_k(hidden, head, 2, temperature=2.0)[0][0]
    np.testing.assert_allclose(np.exp(warm), roots, rtol=1e-6)


def test_equal_logits_give_the_lower_id_first():
    logp, ids = head_top_k(jnp.ones((1, 1)), jnp.array([[0.0], [3.0], [1.0], [3.0]]), 3)
    assert ids.tolist() == [[1, 3, 2]] and logp[0, 0] == logp[0, 1]


def test_bfloat16_states_are_summed_in_float32():
    hidden, head = arrays(jnp.bfloat16)
    logp, ids = head_top_k(hidden, head, 4, valid_vocab=VALID)
    want_logp, want_ids = oracle(hidden.astype(jnp.float32), head.astype(jnp.float32), 4, 1.0)
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
    grads = jax.grad(lambda *x: head_top_k(*x, 3)[0].sum(), argnums=(0, 1))(hidden, head)
    assert not any(np.asarray(g).any() for g in grads)


def test_it_feeds_the_top_k_tail_divergence():
    """With k = V − 1 the tail is one token: the value is the whole KL at T, times T²."""
    (teacher, head), T = arrays(), 2.0
    student = teacher + 0.3
    logp, ids = head_top_k(teacher, head, VALID - 1, valid_vocab=VALID, temperature=T)
    whole = [jax.nn.log_softmax((x @ head[:VALID].T) / T) for x in (teacher, student)]
    listed = jnp.take_along_axis(whole[1], ids, axis=1)
    got = top_k_tail_divergence(logp, listed, temperature=T)
    want = T**2 * jnp.sum(jnp.exp(whole[0]) * (whole[0] - whole[1]), axis=1)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"k": V + 1}, {"k": 2, "temperature": 0.0}, {"k": 9, "valid_vocab": 8}]
)
def test_what_is_impossible_is_refused(wrong):
    with pytest.raises(ConfigError):
        head_top_k(*arrays(), **wrong)


def test_the_logits_are_those_of_head_scores():
    hidden, head = arrays()
    scores = head_scores(hidden, head, jnp.zeros(N, jnp.int32), valid_vocab=VALID, top_k=3)
    logp, ids = head_top_k(hidden, head, 3, valid_vocab=VALID)
    np.testing.assert_array_equal(ids, scores.top_ids_NK)
    shifts = scores.top_logits_NK - logp
    np.testing.assert_allclose(shifts, np.repeat(shifts[:, :1], 3, axis=1), atol=1e-6)
