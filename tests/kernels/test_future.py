"""Costs after a token: values by hand, masks, and the whole answer's gradient by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.kernels.future import cost_to_go, less_other_samples


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("gamma", "want"),
    [
        # c = 1, 2, 4: C2 = 0; C1 = 4; C0 = 2 + 4
        (1.0, [6.0, 4.0, 0.0]),
        # C1 = .5·4; C0 = .5·(2 + 2)
        (0.5, [2.0, 2.0, 0.0]),
        (0.0, [0.0, 0.0, 0.0]),
    ],
)
def test_by_hand(jit, gamma, want):
    def run(cost):
        return cost_to_go(cost, jnp.ones((1, 3)), gamma=gamma)

    np.testing.assert_allclose(
        (jax.jit(run) if jit else run)(jnp.array([[1.0, 2.0, 4.0]]))[0], want
    )


def test_masked_is_removed_and_has_no_gradient():
    cost, mask = jnp.array([[1.0, np.nan, 2.0, 4.0, np.nan]]), jnp.array([[1, 0, 1, 1, 0]])
    got = cost_to_go(cost, mask, gamma=0.5)
    np.testing.assert_allclose(got[0, jnp.array([0, 2, 3])], [2.0, 2.0, 0.0])
    slope = jax.grad(lambda x: cost_to_go(x, jnp.ones((1, 3)), gamma=1.0).sum())(jnp.ones((1, 3)))
    np.testing.assert_array_equal(slope, 0.0)


def test_baseline_by_hand():
    # Two prompts a, b with three samples: rows a0 b0 a1 b1 a2 b2.
    to_go = jnp.array([[6.0], [1.0], [2.0], [1.0], [1.0], [1.0]])
    # 6 − (2+1)/2, 2 − (6+1)/2, 1 − (6+2)/2
    want = [[4.5], [0.0], [-1.5], [0.0], [-3.0], [0.0]]
    np.testing.assert_allclose(less_other_samples(to_go, 3), want)


# --- a toy with all its answers -------------------------------------------------------------------

END, V, LONGEST = 0, 3, 3


def answers():
    """All answers: token 0 ends one, and the third token is the last."""
    for tokens in itertools.product(range(V), repeat=LONGEST):
        end = next((t for t, a in enumerate(tokens) if a == END), LONGEST - 1)
        if all(a == END for a in tokens[end + 1 :]):
            yield tokens[: end + 1] if tokens[end] == END else tokens


def prefixes():
    return [p for n in range(LONGEST) for p in itertools.product(range(1, V), repeat=n)]


@pytest.fixture(scope="module")
def toy():
    """Logits of the student and of the teacher at each prefix, and all answers as arrays."""
    with jax.enable_x64(True):
        places = {prefix: i for i, prefix in enumerate(prefixes())}
        rng = np.random.default_rng(0)
        student, teacher = rng.normal(size=(2, len(places), V))
        found = sorted(set(answers()))
        at = np.zeros((len(found), LONGEST), int)
        action, mask = np.zeros_like(at), np.zeros(at.shape)
        for row, tokens in enumerate(found):
            for t, a in enumerate(tokens):
                at[row, t], action[row, t], mask[row, t] = places[tokens[:t]], a, 1.0
        yield jnp.array(student), jnp.array(teacher), at, action, jnp.array(mask)


def log_probability(logits, at, action, mask):
    logp = jax.nn.log_softmax(logits)
    return jnp.sum(logp[at, action] * mask, axis=1)


def whole(student, teacher, at, action, mask):
    """Reverse KL of whole answers, from all of them."""
    own = log_probability(student, at, action, mask)
    return jnp.sum(jnp.exp(own) * (own - log_probability(teacher, at, action, mask)))


def sampled(student, teacher, at, action, mask, *, future, samples):
    """The loss of these answers, a mean over samples; rows as `less_other_samples` has them."""
    logp, logt = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    cost = jnp.sum(jnp.exp(logp) * (logp - logt), axis=1)[at]
    advantage = cost_to_go(cost, mask, gamma=1.0)
    if samples > 1:
        advantage = less_other_samples(advantage, samples)
    return jnp.sum((cost + future * advantage * logp[at, action]) * mask) / samples


def expected(toy, samples, future=1.0):
    """Mean and variance (summed over parameters) of the gradient, over all draws of answers."""
    student, teacher, at, action, mask = toy
    probability = jnp.exp(log_probability(student, at, action, mask))
    draws = jnp.array(list(itertools.product(range(len(at)), repeat=samples)))

    def one(rows):
        args = student, teacher, jnp.array(at)[rows], jnp.array(action)[rows], mask[rows]
        return jax.grad(sampled)(*args, future=future, samples=samples)

    grads = jax.lax.map(one, draws, batch_size=1125)
    weight = jnp.prod(probability[draws], axis=1)
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-12)
    mean = jnp.tensordot(weight, grads, 1)
    return mean, float(jnp.tensordot(weight, jnp.sum((grads - mean) ** 2, axis=(1, 2)), 1))


def test_expected_gradient_is_that_of_the_whole_answers_kl(toy):
    with jax.enable_x64(True):
        want = jax.grad(whole)(*toy)
        assert want.dtype == jnp.float64
        alone, variance = expected(toy, 1)
        np.testing.assert_allclose(alone, want, atol=1e-12)
        three, with_baseline = expected(toy, 3)
        np.testing.assert_allclose(three, want, atol=1e-12)
        # Three answers without a baseline have a third of one's variance; with it less.
        assert with_baseline < 0.95 * variance / 3
        myopic, _ = expected(toy, 1, future=0.0)
        assert np.max(np.abs(myopic - want)) > 0.01
