"""The GRPO family: values by hand, a loop for each entry, accumulation, masks, gradients."""

import dataclasses

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.kernels.policy_losses import (
    LOSSES,
    PolicyLossSettings,
    normaliser,
)

pytestmark = pytest.mark.slow

NAMES = list(LOSSES)
SEQUENCE_MEANS = ("grpo", "gspo", "sapo", "gmpo")
# Wide enough that some ratios clip and some do not, in every variant.
SETTINGS = PolicyLossSettings(max_completion_length=9)


# One program for each shape, whichever test asks.
RUN = {name: jax.jit(entry, static_argnums=4) for name, entry in LOSSES.items()}
NORMALISER = jax.jit(normaliser)
SLOPES = {
    name: jax.jit(
        jax.value_and_grad(lambda *a, e=entry, **k: e(*a, SETTINGS, **k), (0, 1, 2), has_aux=True)
    )
    for name, entry in LOSSES.items()
}


def slopes(name, *args, **more):
    """(value, metrics), gradient of the log-probabilities; nothing else has one."""
    found, (grad, *others) = SLOPES[name](*args, **more)
    assert not any(np.any(np.asarray(x)) for x in others)
    return found, np.asarray(grad)


def slope_of(name, logp, *args):
    """The gradient of the log-probabilities alone."""
    return jax.jit(jax.grad(lambda x: LOSSES[name](x, *args)[0]))(logp)


def batch(seed, size=(4, 6)):
    rng = np.random.default_rng(seed)
    logp, move = -rng.exponential(size=size), rng.normal(size=size) * 0.3
    advantage = rng.normal(size=(size[0], 1))
    length = rng.integers(1, size[1] + 1, size[0])
    mask = np.arange(size[1]) < length[:, None]
    return tuple(np.asarray(x, np.float32) for x in (logp, logp - move, advantage, mask))


def loop(name, logp, old, advantage, mask, low, high, max_length):
    """The published formulas, sequence by sequence, in float64."""
    sequences, tokens, total, tokens_in_all = [], [], 0.0, int(mask.sum())
    for b in range(logp.shape[0]):
        n = int(mask[b].sum())
        if n == 0:
            continue
        move = logp[b, :n].astype(np.float64) - old[b, :n]
        ratio = np.full(n, np.exp(move.mean())) if name == "gspo" else np.exp(move)
        a = np.broadcast_to(advantage[b], (logp.shape[1],))[:n].astype(np.float64)
        if name == "cispo":
            loss = -np.minimum(ratio, high) * a * logp[b, :n]
        elif name == "sapo":
            tau = np.where(a > 0, 1.0, 1.05)
            loss = -4 / tau / (1 + np.exp(-tau * (ratio - 1))) * a
        elif name == "dppo_tv":
            moved = np.exp(logp[b, :n]) - np.exp(old[b, :n])
            held = np.where(a > 0, moved > high, moved < -low)
            loss = -np.where(held, 0.0, np.minimum(ratio, 20.0)) * a * logp[b, :n]
        elif name == "gmpo":
            bounded = np.where(a > 0, np.minimum(move, high), np.maximum(move, -low))
            loss = -np.exp(bounded.mean()) * a
        else:
            loss = -np.minimum(ratio * a, np.clip(ratio, 1 - low, 1 + high) * a)
        sequences.append(loss.mean())
        tokens.extend(loss)
    if name in SEQUENCE_MEANS:
        return np.mean(sequences)
    total = np.sum(tokens)
    return total / (len(sequences) * max_length) if name == "dr_grpo" else total / tokens_in_all


@pytest.mark.parametrize("name", NAMES)
def test_old_log_probabilities_and_advantages_get_no_gradient(name):
    _, (logp, old, advantage) = SLOPES[name](*batch(0))
    assert np.any(np.asarray(logp))
    assert not np.any(np.asarray(old)) and not np.any(np.asarray(advantage))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_published_formula(name, seed):
    entry = LOSSES[name]
    args = batch(seed)
    (got, _), _ = slopes(name, *args)
    expected = loop(name, *args, entry.clip_low, entry.clip_high, 9)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    given, _ = RUN[name](*args, SETTINGS, norm=NORMALISER(args[3]))
    np.testing.assert_allclose(given, got, rtol=1e-5, atol=1e-6)


def test_averages_by_hand():
    # Two answers, ratio 1, lengths 1 and 3, A = 1 and −2, so token losses −1 and 2, 2, 2.
    zero = np.zeros((2, 3))
    mask = np.array([[1.0, 0, 0], [1, 1, 1]])
    advantage = np.array([[1.0], [-2.0]])
    values = {name: float(RUN[name](zero, zero, advantage, mask)[0]) for name in NAMES}
    assert values["grpo"] == pytest.approx((-1 + 2) / 2)
    assert values["gspo"] == pytest.approx((-1 + 2) / 2)
    assert values["bnpo"] == pytest.approx((-1 + 6) / 4)
    assert values["dapo"] == pytest.approx((-1 + 6) / 4)
    assert values["dr_grpo"] == pytest.approx((-1 + 6) / (2 * 3))  # R = 3 without a setting
    longer = PolicyLossSettings(max_completion_length=10)
    assert float(RUN["dr_grpo"](zero, zero, advantage, mask, longer)[0]) == pytest.approx(5 / 20)


def test_gspo_ratio_by_hand():
    # l = [.2, −.1, .2]: mean .1, ρ = e^.1 = 1.10517; no clip: loss −1.10517 for A = 1
    move = np.array([[0.2, -0.1, 0.2]])
    wide = PolicyLossSettings(clip_low=0.5, clip_high=0.5)
    ones = np.ones((1, 3))
    loss, _ = RUN["gspo"](move, 0 * move, np.ones((1, 1)), ones, wide)
    np.testing.assert_allclose(loss, -1.10517, atol=1e-5)
    # The gradient is that of −exp(mean l): −ρ/3 at every token.
    grad = slope_of("gspo", move, 0 * move, np.ones((1, 1)), ones, wide)
    np.testing.assert_allclose(grad, [[-1.10517 / 3] * 3], atol=1e-5)


def test_cispo_keeps_the_gradient_of_capped_tokens():
    # ρ = e² = 7.389 above the cap 5, A = 1: −5·1·∇log π; ppo's clip would give 0
    move = np.array([[2.0]])
    one = np.ones((1, 1))
    grad = slope_of("cispo", move, 0 * move, one, one)
    np.testing.assert_allclose(grad, [[-5.0]])
    grad = slope_of("dapo", move, 0 * move, one, one)
    np.testing.assert_allclose(grad, [[0.0]])


def test_dapo_clips_higher():
    # ρ = 1.25: inside 1.28, outside 1.2
    move = np.log(np.array([[1.25]]))
    one = np.ones((1, 1))
    np.testing.assert_allclose(RUN["dapo"](move, 0 * move, one, one)[0], -1.25, rtol=1e-6)
    np.testing.assert_allclose(RUN["bnpo"](move, 0 * move, one, one)[0], -1.2, rtol=1e-6)


def test_sapo_by_hand():
    # ρ = 1.5. A = 1, τ = 1: σ(.5) = .62246, loss −4·.62246 = −2.48984, slope −4ρσ(1−σ) = −1.41002.
    # A = −1, τ = 2: σ(1) = .731059, loss 2·.731059 = 1.46212, slope 4·1.5·.196612 = 1.17967.
    move, one = np.log(np.array([[1.5]])), np.ones((1, 1))
    settings = PolicyLossSettings(temperature_neg=2.0)
    for sign, loss, slope in ((1, -2.48984, -1.41002), (-1, 1.46212, 1.17967)):
        args = move, 0 * move, sign * one, one, settings
        np.testing.assert_allclose(RUN["sapo"](*args)[0], loss, rtol=1e-5)
        np.testing.assert_allclose(slope_of("sapo", *args[:4], settings), [[slope]], rtol=1e-5)
    # There is no bound, and no token is counted as past it.
    metrics = RUN["sapo"](3 * move, 0 * move, one, one)[1]
    assert not any(metrics[name] for name in metrics if name.startswith("clip_ratio/"))


@pytest.mark.parametrize(
    ("p", "old", "advantage", "slope"),
    [
        # ρ = 3, moved .02: a rare token may grow threefold, where a ratio's clip would hold it
        (0.03, 0.01, 1.0, -3.0),
        # moved .25 > .2: held where A > 0, not where A < 0
        (0.75, 0.5, 1.0, 0.0),
        (0.75, 0.5, -1.0, 1.5),
        # moved −.3 < −.2: held where A < 0, not where A > 0
        (0.5, 0.8, -1.0, 0.0),
        (0.5, 0.8, 1.0, -0.625),
        # ρ = 100 counts as 20
        (0.1, 0.001, 1.0, -20.0),
    ],
)
def test_dppo_tv_by_hand(p, old, advantage, slope):
    one = np.ones((1, 1))
    args = np.log(p * one), np.log(old * one), advantage * one, one
    np.testing.assert_allclose(slope_of("dppo_tv", *args), [[slope]], rtol=1e-5)
    loss, metrics = RUN["dppo_tv"](*args)
    np.testing.assert_allclose(loss, slope * np.log(p), rtol=1e-5)
    assert float(metrics["clip_ratio/region_mean"]) == float(slope == 0)


def test_gmpo_by_hand():
    # l = [.9, −.5, .2], A = 1: clipped above at .4: [.4, −.5, .2], mean 1/30, exp 1.033895.
    # A = −1: clipped below at −.4: [.9, −.4, .2], mean .7/3, exp 1.262802.
    # The slope is ∓ exp(mean)/3, 0 at the token that is clipped.
    move, ones = np.array([[0.9, -0.5, 0.2]]), np.ones((1, 3))
    for sign, mean, held in ((1, 1 / 30, 0), (-1, 0.7 / 3, 1)):
        args = move, 0 * move, sign * np.ones((1, 1)), ones
        loss, metrics = RUN["gmpo"](*args)
        np.testing.assert_allclose(loss, -sign * np.exp(mean), rtol=1e-5)
        slope = np.full(3, -sign * np.exp(mean) / 3)
        slope[held] = 0
        np.testing.assert_allclose(slope_of("gmpo", *args), [slope], rtol=1e-5)
        side = "high" if sign > 0 else "low"
        assert metrics[f"clip_ratio/{side}_mean"] == pytest.approx(1 / 3)


def test_delta_bounds_the_ratio_where_the_advantage_is_negative():
    # ρ = 8, δ = 4, ε = .2, A = −1: −min(min(8, 4)·−1, 1.2·−1) = 4, flat; without δ 8, slope 8.
    # A = 1: −1.2 with and without. ρ = 2 < δ, A = −1: 2, slope 2.
    one, two_sided = np.ones((1, 1)), PolicyLossSettings(delta=4.0)
    for ratio, sign, settings, loss, slope in (
        (8.0, -1, two_sided, 4.0, 0.0),
        (8.0, -1, PolicyLossSettings(), 8.0, 8.0),
        (8.0, 1, two_sided, -1.2, 0.0),
        (2.0, -1, two_sided, 2.0, 2.0),
    ):
        args = np.log(ratio * one), 0 * one, sign * one, one, settings
        np.testing.assert_allclose(RUN["grpo"](*args)[0], loss, rtol=1e-5)
        np.testing.assert_allclose(slope_of("grpo", *args), [[slope]], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences_in_float64(name):
    # Of weights without a gradient the ratio must stay: the old log-probabilities move along.
    along = float(name in ("cispo", "dppo_tv"))
    rng = np.random.default_rng(5)
    logp, move = -rng.exponential(size=(3, 5)), rng.normal(size=(3, 5))
    advantage, mask = rng.normal(size=(3, 1)), np.arange(5) < [[5], [2], [4]]
    entry = LOSSES[name]
    settings = SETTINGS
    if "delta" in entry.reads:
        settings = dataclasses.replace(SETTINGS, delta=3.0, clip_low=0.3, clip_high=0.5)
    with jax.enable_x64(True):

        @jax.jit
        def value(x, d):
            return entry(x + d, logp - move + along * d, advantage, mask, settings)[0]

        grad = np.asarray(jax.jit(jax.grad(value))(logp, np.zeros((3, 5))))
        steps = 1e-6 * np.eye(15).reshape(15, 3, 5)
        wanted = [float(value(logp, d) - value(logp, -d)) / 2e-6 for d in steps]
    assert np.abs(grad).max() > 1e-3
    np.testing.assert_allclose(grad.ravel(), wanted, atol=1e-8)


def test_rows_without_tokens_do_not_lower_the_least_clip_ratio():
    # Microbatches are joined by their minimum; in the first row all is clipped from below.
    move = np.log(np.array([[0.5, 0.5], [1.0, 1.0]]))
    mask = np.array([[1.0, 1], [0, 0]])
    _, metrics = RUN["grpo"](move, 0 * move, -np.ones((2, 1)), mask)
    assert metrics["clip_ratio/low_min"] == pytest.approx(1.0)
    _, metrics = RUN["grpo"](move[1:], 0 * move[1:], -np.ones((1, 1)), mask[1:])
    assert metrics["clip_ratio/low_min"] == pytest.approx(1.0)


def test_clip_metrics_by_hand():
    # row 0 (A=−1): ratios .5, 1, 1.5: one below the clip; row 1 (A=1): .5, 1.5, –: one above of two
    move = np.log(np.array([[0.5, 1.0, 1.5], [0.5, 1.5, 1.5]]))
    mask = np.array([[1.0, 1, 1], [1, 1, 0]])
    _, metrics = RUN["grpo"](move, 0 * move, np.array([[-1.0], [1.0]]), mask)
    assert metrics["clip_ratio/low_mean"] == pytest.approx(1 / 5)
    assert metrics["clip_ratio/high_mean"] == pytest.approx(1 / 5)
    assert metrics["clip_ratio/region_mean"] == pytest.approx(2 / 5)
    assert metrics["clip_ratio/low_min"] == pytest.approx(0.0)
    assert metrics["clip_ratio/high_max"] == pytest.approx(1 / 2)
    # ½l²: ln .5² = .480453 twice, ln 1.5² = .164402 twice, over five tokens
    assert metrics["policy/approxkl_avg"] == pytest.approx(0.5 * 1.28971 / 5, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cuts", [[0, 1, 4], [0, 1, 2, 3, 4]])
def test_microbatches_add_up_to_the_whole_batch(name, cuts):
    args = batch(7)
    rng = np.random.default_rng(1)
    weight, extra = rng.uniform(0, 2, (2, 4, 6)).astype(np.float32)
    norm = NORMALISER(args[3])
    (whole, metrics), grad = slopes(name, *args, norm=norm, weight_BR=weight, extra_BR=extra)
    parts = []
    for start, end in zip(cuts[:-1], cuts[1:], strict=True):
        part = [x[start:end] for x in (*args, weight, extra)]
        parts.append(slopes(name, *part[:4], norm=norm, weight_BR=part[4], extra_BR=part[5]))
    np.testing.assert_allclose(sum(p[0][0] for p in parts), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), grad, rtol=1e-5, atol=1e-7)
    for key, value in metrics.items():
        each = [p[0][1][key] for p in parts]
        join = min if key.endswith("min") else max if key.endswith("max") else sum
        np.testing.assert_allclose(join(each), value, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
@hypothesis.given(st.integers(0, 99), st.integers(0, 5))
@hypothesis.settings(deadline=None, max_examples=10)
def test_masked_equals_removed_with_finite_gradient(name, seed, pads):
    logp, old, advantage, mask = batch(seed)
    mask[0] = 0  # a row that is padding as a whole
    mask[:, 6 - pads :] = 0
    seen = mask > 0
    more = {"weight_BR": np.where(seen, 1.0, np.nan), "extra_BR": np.where(seen, 0.0, np.nan)}
    given = (np.where(seen, logp, np.nan), np.where(seen, old, np.inf), advantage, mask)
    (value, _), grad = slopes(name, *given, **more)
    assert np.all(np.isfinite(grad)) and not np.any(grad[mask == 0])
    size = max(6 - pads, 1)
    entry = LOSSES[name]
    short = [x[1:, :size] for x in (logp, old, np.broadcast_to(advantage, (4, 6)), mask)]
    clip = (entry.clip_low, entry.clip_high, 9)
    expected = loop(name, *short, *clip) if mask.any() else 0.0
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_kept_is_zero(name):
    logp, old, advantage, _ = batch(0)
    (value, metrics), grad = slopes(name, logp, old, advantage, np.zeros((4, 6), np.float32))
    assert float(value) == 0.0 and not np.any(grad)
    assert all(np.isfinite(v) for v in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_on_policy_gradient_is_the_policy_gradient(name):
    # At ρ=1 every entry's gradient is −A·∇log π under its own average.
    logp, _, advantage, mask = batch(3)
    _, grad = slopes(name, logp, logp, advantage, mask)
    tokens, rows, length = mask.sum(), 4, mask.sum(1, keepdims=True)
    weight = {name: 1 / (rows * length) for name in SEQUENCE_MEANS} | {"dr_grpo": 1 / (rows * 9)}
    expected = -advantage * mask * weight.get(name, 1 / tokens)
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)


def test_token_advantages_keep_their_place_in_gspo():
    # A = [1, 0, 0]: only the first token's log-probability is pushed.
    zero = np.zeros((1, 3))
    advantage = np.array([[1.0, 0.0, 0.0]])
    grad = slope_of("gspo", zero, zero, advantage, np.ones((1, 3)))
    np.testing.assert_allclose(grad, [[-1 / 3, 0, 0]], atol=1e-6)
