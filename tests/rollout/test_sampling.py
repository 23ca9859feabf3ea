import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distill_jax.rollout.sampling import _first_past, draw, invert_cdf

OFF = dict(temperature=1.0, top_k=0, top_p=1.0)


def nucleus(p, top_p):
    """Slow: add tokens from the most probable down until their mass reaches top_p."""
    kept, mass = np.zeros(len(p), bool), 0.0
    for i in np.argsort(-p, kind="stable"):
        kept[i] = True
        mass += p[i]
        if mass >= top_p:
            break
    return kept


def test_greedy_ignores_the_uniform_and_takes_the_lowest_of_a_tie():
    logits = jnp.array([[0.0, 2.0, 2.0, 1.0], [3.0, -1.0, 0.0, 3.0]])
    got = draw(logits, jnp.array([0.99, 0.99]), temperature=0.0, top_k=0, top_p=1.0)
    assert got.token_B.tolist() == [1, 0]
    assert got.logp_B.tolist() == [0.0, 0.0]


def test_greedy_computes_no_softmax():
    def program(temperature):
        how = {**OFF, "temperature": temperature}
        return str(jax.make_jaxpr(lambda x: draw(x, x[:, 0], **how))(jnp.zeros((2, 5))))

    assert "exp" in program(1.0) and "exp" not in program(0.0)


@pytest.mark.parametrize(
    "how",
    [OFF, {**OFF, "temperature": 0.6}, {**OFF, "top_k": 4}, {**OFF, "top_p": 0.8}],
    ids=["plain", "cold", "top_k", "top_p"],
)
def test_many_draws_fit_the_distribution(how):
    V, N = 11, 20_000
    logits = np.random.default_rng(1).normal(size=V).astype(np.float32) * 1.5
    p = np.exp(logits.astype(np.float64) / how["temperature"])
    policy = p / p.sum()
    kept = np.ones(V, bool)
    if how["top_k"]:
        kept = policy >= np.sort(policy)[-how["top_k"]]
    if how["top_p"] < 1:
        kept = nucleus(policy, how["top_p"])
    p = np.where(kept, policy, 0.0) / policy[kept].sum()
    uniform = jax.random.uniform(jax.random.key(3), (N,))
    got = jax.jit(lambda x, u: draw(x, u, **how))(jnp.tile(logits, (N, 1)), uniform)
    counts = np.bincount(np.asarray(got.token_B), minlength=V)
    assert counts[~kept].sum() == 0
    assert stats.chisquare(counts[kept], N * p[kept]).pvalue > 1e-3
    token = np.asarray(got.token_B)
    np.testing.assert_allclose(got.logp_B, np.log(p[token]), atol=2e-6)


@functools.partial(jax.jit, static_argnums=2)
def _inverted(p, uniform, size):
    def one(part):
        return invert_cdf(jnp.broadcast_to(p, (size, len(p))), part)

    return jax.lax.map(one, uniform.reshape(-1, size)).reshape(-1)


def inverted(p, uniform, size=16):
    """invert_cdf of one distribution at many uniforms, a few at a time."""
    return np.asarray(_inverted(np.asarray(p, np.float32), np.asarray(uniform, np.float32), size))


@pytest.mark.parametrize("shape", ["peaked", "tail_last", "flat"])
def test_inversion_at_a_large_vocabulary(shape):
    V, N = 30_011, 1024  # V is no square: the last row of the two-level sum is padded
    rng = np.random.default_rng(0)
    p = {
        "peaked": lambda: np.exp(rng.normal(size=V) * 4),
        # One token of 99.9% before 30,010 of 3e-8 each: the tail must share what is left.
        "tail_last": lambda: np.r_[0.999, np.full(V - 1, 1e-3 / (V - 1))],
        "flat": lambda: np.ones(V),
    }[shape]()
    p = p.astype(np.float32).astype(np.float64)
    cdf = np.cumsum(p) / p.sum()
    low = 0.999 if shape == "tail_last" else 0.0
    uniform = (low + (1 - low) * rng.random(N)).astype(np.float32)
    uniform[0], uniform[1] = low, np.nextafter(np.float32(1), np.float32(0))
    token = inverted(p, uniform)
    # The oracle in float64: token t owns [cdf[t−1], cdf[t]). Two sums of 174 terms in float32 may
    # be off by 174 half-ulps of 1, that is 5e-6: half a percent of the tail.
    before = np.where(token > 0, cdf[token - 1], 0.0)
    assert np.all(before - uniform < 5e-6) and np.all(uniform - cdf[token] < 5e-6)
    if shape == "tail_last":
        tenth = np.bincount(np.maximum(token[2:] - 1, 0) * 10 // V, minlength=10)
        assert stats.chisquare(tenth).pvalue > 1e-3


def test_no_token_without_mass_is_ever_drawn():
    # Sums of mass-less entries differ in the last bit from those before them: aim at the seams.
    rng = np.random.default_rng(0)
    V, rows = 400, []
    for _ in range(6):
        p = rng.random(V).astype(np.float32)
        p[rng.random(V) < 0.5] = 0
        for row in rng.choice(20, 12, replace=False):
            p[row * 20 : row * 20 + 20] = 0
        rows.append(p)
    for p in rows:
        seams = (np.cumsum(p.astype(np.float64)) / p.sum(dtype=np.float64)).astype(np.float32)
        near = [seams]
        for _ in range(4):
            near.append(np.nextafter(near[-1], np.float32(0)))
        above = seams
        for _ in range(4):
            above = np.nextafter(above, np.float32(2))
            near.append(above)
        uniform = np.clip(np.concatenate(near), 0, np.float32(1 - 2**-24))
        token = inverted(p, uniform, 400)
        assert np.all(p[token] > 0)


def test_rounding_of_the_sums_does_not_matter():
    # The sums rise at entry 1, which has no mass, and end below the goal of the second row.
    mass = jnp.array([[0.5, 0.0, 0.5, 0.0]])
    cum = jnp.array([[0.5, 0.5000001, 1.0, 1.0]])
    assert _first_past(mass, cum, jnp.array([0.5])).tolist() == [2]
    assert _first_past(mass, cum, jnp.array([1.0])).tolist() == [2]
    assert _first_past(mass, cum, jnp.array([0.0])).tolist() == [0]


def test_nothing_beyond_the_vocabulary_is_drawn():
    # All mass on the last token, and V = 5 in rows of 3: one entry is padding.
    token = inverted(np.array([0, 0, 0, 0, 1.0]), np.linspace(0, 0.9999999, 16))
    assert set(token) == {4}
