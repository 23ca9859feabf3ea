"""Preference losses by hand, their gradients, and what leaves them unchanged."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.preference import PREFERENCES, Pairs, preference_loss


def pairs(chosen, rejected, ref_chosen=0.0, ref_rejected=0.0, lengths=(10, 20)):
    """One pair with W = chosen − ref_chosen and L = rejected − ref_rejected."""
    values = (chosen, rejected, ref_chosen, ref_rejected, *lengths)
    return Pairs(*(jnp.array([value], jnp.float32) for value in values))


# W = 2, L = −1, β = .1: β(W − L) = .3
ONE = pairs(-3.0, -9.0, -5.0, -8.0)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        # −log σ(.3)
        ("sigmoid", {}, 0.554355),
        # .9·.554355 + .1·.854355
        ("sigmoid", {"smoothing": 0.1}, 0.584355),
        # (.9·.554355 − .1·.854355)/.8
        ("robust", {"smoothing": 0.1}, 0.516855),
        # 1 − .3
        ("hinge", {}, 0.7),
        # 2/10 − (−1)/20 = .25; (.25 − 5)²
        ("ipo", {}, 22.5625),
        # −log σ(.1·.25)
        ("sigmoid_norm", {}, 0.680725),
        # −log σ(5·.25)
        ("sigmoid_norm", {"beta": 5.0}, 0.251929),
    ],
)
def test_by_hand(kind, settings, expected):
    loss_B, _ = preference_loss(ONE, kind, **{"beta": 0.1, **settings})
    np.testing.assert_allclose(loss_B, [expected], rtol=2e-6)


@pytest.mark.parametrize(("target", "expected"), [(0.5, 1.171101), (0.0, 0.598139)])
def test_simpo_by_hand(target, expected):
    # means −.5 and −.6: 2·(.1 − γ/β)
    one = pairs(-5.0, -12.0)
    loss_B, margin_B = preference_loss(one, "simpo", beta=2.0, target=target)
    np.testing.assert_allclose(loss_B, [expected], rtol=2e-6)
    np.testing.assert_allclose(margin_B, [2 * (0.1 - target)], rtol=1e-5)


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "sigmoid_norm"])
def test_start_is_ln_2(kind):
    # policy = reference: W = L = 0
    loss_B, margin_B = preference_loss(pairs(-3.0, -4.0, -3.0, -4.0), kind, beta=0.1)
    np.testing.assert_allclose(loss_B, [0.693147], rtol=1e-6)
    np.testing.assert_array_equal(margin_B, [0.0])


def test_gradient_weight_of_sigmoid():
    # dl/dW = −β·σ(−.3) = −.1·.425557, and the opposite for L; none for the reference
    grad = jax.grad(lambda p: preference_loss(p, "sigmoid", beta=0.1)[0][0])(ONE)
    np.testing.assert_allclose(grad.chosen_B, [-0.0425557], rtol=1e-5)
    np.testing.assert_allclose(grad.rejected_B, [0.0425557], rtol=1e-5)
    assert not np.any(grad.ref_chosen_B) and not np.any(grad.ref_rejected_B)


@pytest.mark.parametrize("kind", PREFERENCES)
def test_gradient_raises_the_chosen(kind):
    grad = jax.grad(lambda p: preference_loss(p, kind, beta=0.1)[0][0])(ONE)
    assert grad.chosen_B[0] < 0 < grad.rejected_B[0]


@pytest.mark.parametrize("kind", ["ipo", "sigmoid_norm", "simpo"])
@hypothesis.given(st.floats(-3, 3))
@hypothesis.settings(max_examples=20, deadline=None)
def test_lowering_every_token_moves_no_mean(kind, by):
    # each token by `by` nats: sums by n·by. The sums' margin moves by (n_l − n_w)·by.
    lowered = ONE._replace(chosen_B=ONE.chosen_B - 10 * by, rejected_B=ONE.rejected_B - 20 * by)
    _, before = preference_loss(ONE, kind, beta=0.1)
    _, after = preference_loss(lowered, kind, beta=0.1)
    np.testing.assert_allclose(after, before, atol=2e-5)
    _, sums = preference_loss(lowered, "sigmoid", beta=0.1)
    np.testing.assert_allclose(sums, [0.3 + 0.1 * 10 * by], atol=2e-5)


@pytest.mark.parametrize("kind", ["ipo", "sigmoid_norm"])
def test_doubling_a_completion_moves_no_mean(kind):
    twice = Pairs(*(2 * value if name.startswith(("chosen", "ref_chosen")) else value
                    for name, value in ONE._asdict().items()))  # fmt: skip
    np.testing.assert_allclose(
        preference_loss(twice, kind, beta=0.1)[0], preference_loss(ONE, kind, beta=0.1)[0],
        rtol=1e-6,
    )  # fmt: skip
    assert (
        preference_loss(twice, "sigmoid", beta=0.1)[1]
        != preference_loss(ONE, "sigmoid", beta=0.1)[1]
    )


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("dpo", {}, "one of sigmoid"),
        ("ipo", {"smoothing": 0.1}, "label_smoothing=0.1 with loss=ipo"),
        ("robust", {"smoothing": 0.5}, "label_smoothing=0.5"),
        ("sigmoid", {"target": 0.5}, "target_margin=0.5 with loss=sigmoid"),
    ],
)
def test_refused(kind, settings, said):
    with pytest.raises(ConfigError, match=said):
        preference_loss(ONE, kind, beta=0.1, **settings)
