"""Top-k and nucleus: by hand, against a sort of the vocabulary, and what holds for any logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.rollout.sampling import draw, truncate

# Float32 sums of 152,000 weights differ from float64 by less than this share of the total: a mass
# nearer to top_p may count as reached or not.
ROUNDING = 1e-6

cut = jax.jit(truncate, static_argnums=(1, 2))


def kept(logits, top_k, top_p):
    return np.isfinite(np.asarray(cut(jnp.asarray(logits, jnp.float32), top_k, top_p)))


@functools.partial(jax.jit, static_argnums=1)
def cut_by_sorting(logits_BV, top_p):
    """The nucleus from a sort of the vocabulary; equal logits at the border all stay."""
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    last_B1 = jnp.sum(before_BV < top_p, axis=-1, keepdims=True) - 1
    border_B1 = jnp.take_along_axis(sorted_BV, jnp.maximum(last_B1, 0), axis=-1)
    return jnp.where(logits_BV < border_B1, -jnp.inf, logits_BV)


def check(logits_V, kept_V, top_p, rounding=ROUNDING):
    """That the kept tokens are the nucleus of one row, in float64."""
    weight_V = np.exp(logits_V.astype(np.float64) - logits_V.max())
    p_V = weight_V / weight_V.sum()
    assert kept_V[logits_V == logits_V.max()].all()
    lowest = p_V[kept_V].min()
    assert p_V[~kept_V].max(initial=0.0) < lowest, "a kept token is less probable than one cut off"
    assert p_V[kept_V].sum() >= top_p - rounding, "the mass does not reach top_p"
    # Probabilities a float32 apart may be equal in float32: they are one tie.
    above_V = p_V > lowest * (1 + 1e-6)
    assert p_V[above_V].sum() < top_p + rounding, "fewer tokens have the mass, too"


def test_by_hand():
    # p = [.5, .3, .15, .05]
    logits = np.log([[0.5, 0.3, 0.15, 0.05]])

    def got(top_k, top_p):
        return kept(logits, top_k, top_p)[0].tolist()

    assert got(0, 1.0) == [True] * 4
    assert got(2, 1.0) == [True, True, False, False]
    assert got(9, 1.0) == [True] * 4
    assert got(0, 0.79) == [True, True, False, False]  # .5 + .3 reaches .79
    assert got(0, 0.81) == [True, True, True, False]
    assert got(0, 1e-6) == [True, False, False, False]  # the most probable always stays
    # top-k first: of the two left, p = [.625, .375], so .6 needs one alone.
    assert got(2, 0.6) == [True, False, False, False]
    assert got(0, 0.6) == [True, True, False, False]


def test_ties_at_either_border_all_stay():
    logits = np.log([[0.1, 0.4, 0.2, 0.2, 0.1]])
    assert kept(logits, 2, 1.0)[0].tolist() == [False, True, True, True, False]
    # .4 and one of .2 reach .5; the other .2 stays with it.
    assert kept(logits, 0, 0.5)[0].tolist() == [False, True, True, True, False]
    assert kept(logits, 0, 0.81)[0].all()
    assert kept(np.zeros((1, 7)), 0, 1e-3)[0].all()
    # 0 and 1e-9 differ, but not their float32 probabilities.
    assert kept([[0.0, 1e-9, -30.0]], 0, 0.3)[0].tolist() == [True, True, False]


def test_a_nucleus_too_small_for_float32_keeps_the_most_probable():
    # 1e-46 is 0 in float32: every border reaches it.
    assert kept([[1.0, 3.0, 2.0, 3.0]], 0, 1e-46)[0].tolist() == [False, True, False, True]


def test_excluded_tokens_stay_excluded_and_kept_logits_are_unchanged():
    logits = jnp.array([[-jnp.inf, 1.0, -jnp.inf, 0.5], [5.0, -jnp.inf, -jnp.inf, -jnp.inf]])
    np.testing.assert_array_equal(cut(logits, 0, 0.999999), logits)
    np.testing.assert_array_equal(cut(logits, 0, 0.3)[0], [-np.inf, 1.0, -np.inf, -np.inf])


def test_logits_that_are_no_numbers_are_not_hidden():
    # A row with NaN must give NaN log-probabilities, as it does without top-p.
    logits = jnp.array([[0.0, jnp.nan, 1.0], [0.0, 0.0, 1.0]])
    how = dict(temperature=1.0, top_k=0, top_p=0.9)
    logp = np.asarray(draw(logits, jnp.array([0.5, 0.5]), **how).logp_B)
    assert np.isnan(logp[0]) and np.isfinite(logp[1])


def test_nothing_sorts_the_vocabulary():
    program = str(jax.make_jaxpr(lambda x: truncate(x, 5, 0.95))(jnp.zeros((2, 50))))
    assert "sort" not in program and "cumsum" not in program and "top_k" not in program


def rows(kind, rng, shape):
    logits = {
        "random": lambda: rng.normal(size=shape) * 3,
        "peaked": lambda: rng.normal(size=shape) * 20,
        "flat": lambda: rng.normal(size=shape) * 1e-3,
        "tied": lambda: np.round(rng.normal(size=shape) * 2),
        "excluded": lambda: np.where(rng.random(shape) < 0.7, -np.inf, rng.normal(size=shape)),
        "far_from_0": lambda: rng.normal(size=shape) * 2 - 1e4,
    }[kind]()
    return logits.astype(np.float32)


KINDS = ["random", "peaked", "flat", "tied", "excluded", "far_from_0"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_p", [0.05, 0.7, 0.95, 0.999])
def test_small_rows_equal_those_cut_by_sorting(kind, top_p):
    logits = rows(kind, np.random.default_rng(0), (200, 37))
    got, sort = kept(logits, 0, top_p), np.isfinite(np.asarray(cut_by_sorting(logits, top_p)))
    # By how much the masses at the old border pass or miss top_p, in float64.
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    lowest = np.where(sort, p, 2.0).min(axis=1, keepdims=True)
    near = [np.abs((p * m).sum(axis=1) - top_p) < ROUNDING for m in (p >= lowest, p > lowest)]
    sure = ~(near[0] | near[1])
    assert sure.mean() > 0.98
    np.testing.assert_array_equal(got[sure], sort[sure])
    for row in range(len(logits)):
        check(logits[row], got[row], top_p)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_k", [1, 5, 36])
def test_top_k_keeps_what_a_sort_keeps(kind, top_k):
    logits = rows(kind, np.random.default_rng(3), (200, 37))
    border = np.sort(logits, axis=1)[:, -top_k, None]
    want = np.where(logits < border, -np.inf, logits)
    np.testing.assert_array_equal(cut(jnp.asarray(logits), top_k, 1.0), want)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_real_vocabulary_are_cut_exactly(kind):
    logits = rows(kind, np.random.default_rng(1), (2, 151_669))
    for top_p in (0.3, 0.95):
        got = kept(logits, 0, top_p)
        for row in range(2):
            check(logits[row], got[row], top_p)


values = st.one_of(
    st.floats(-60, 60, width=32),
    st.sampled_from([-np.inf, 0.0, -0.0, 1.0, 1.0 + 2**-23, -1e30, 2.5]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(values, min_size=1, max_size=16).filter(lambda x: max(x) > -np.inf),
    st.sampled_from([1e-3, 0.25, 0.5, 0.9, 0.999]),
    st.sampled_from([0, 3]),
)
def test_whatever_the_logits_the_kept_are_the_nucleus(row, top_p, top_k):
    logits = np.array(row + [-np.inf] * (16 - len(row)), np.float32)
    got = kept(logits[None], top_k, top_p)[0]
    if top_k:
        border = np.sort(logits)[-top_k]
        logits = np.where(logits < border, np.float32(-np.inf), logits)
    check(logits, got, top_p)


def test_draws_equal_those_from_a_sorted_vocabulary():
    # Which tokens are left does not depend on how they are found, hence neither does a draw's bits.
    logits = jnp.asarray(rows("random", np.random.default_rng(2), (64, 500)))
    uniform = jax.random.uniform(jax.random.key(0), (64,))
    how = dict(temperature=1.0, top_k=0)
    got = jax.jit(lambda x, u: draw(x, u, **how, top_p=0.9))(logits, uniform)
    want = jax.jit(lambda x, u: draw(x, u, **how, top_p=1.0))(cut_by_sorting(logits, 0.9), uniform)
    np.testing.assert_array_equal(got.token_B, want.token_B)
    np.testing.assert_array_equal(got.logp_B, want.logp_B)
