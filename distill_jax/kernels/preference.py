"""Preference losses: DPO and its relatives, from log-probabilities and lengths alone."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError


class Pairs(NamedTuple):
    """B pairs of completions of one prompt each, f32 [B].

    Attributes:
        chosen_B, rejected_B: Σ_t log π(y_t) over the tokens of the completion, EOS included.
        ref_chosen_B, ref_rejected_B: the same under the reference.
        chosen_len_B, rejected_len_B: number of those tokens, at least 1.
    """

    chosen_B: jax.Array
    rejected_B: jax.Array
    ref_chosen_B: jax.Array
    ref_rejected_B: jax.Array
    chosen_len_B: jax.Array
    rejected_len_B: jax.Array


def _sums(pairs: Pairs) -> jax.Array:
    """W − L, of the log-ratios W = Σ log π/π_ref of the chosen and L of the rejected."""
    return (pairs.chosen_B - pairs.ref_chosen_B) - (pairs.rejected_B - pairs.ref_rejected_B)


def _means(pairs: Pairs) -> jax.Array:
    """W/n_w − L/n_l."""
    chosen_B = (pairs.chosen_B - pairs.ref_chosen_B) / pairs.chosen_len_B
    return chosen_B - (pairs.rejected_B - pairs.ref_rejected_B) / pairs.rejected_len_B


def _policy_means(pairs: Pairs) -> jax.Array:
    """Difference of the mean log-probabilities of a token, without a reference."""
    return pairs.chosen_B / pairs.chosen_len_B - pairs.rejected_B / pairs.rejected_len_B


class Preference(NamedTuple):
    """A preference loss.

    Attributes:
        margin: (pairs, β, γ/β) -> what the loss raises, f32 [B].
        loss: (margin, β, ε) -> f32 [B].
        uses_reference: whether the margin reads ref_chosen_B and ref_rejected_B.
        smooths: whether the loss reads ε.
    """

    margin: Callable[[Pairs, float, float], jax.Array]
    loss: Callable[[jax.Array, float, float], jax.Array]
    uses_reference: bool = True
    smooths: bool = False


def _logistic(margin_B: jax.Array, beta: float, smoothing: float) -> jax.Array:
    """−(1−ε)·log σ(m) − ε·log σ(−m): cDPO where ε > 0."""
    del beta
    return -(1 - smoothing) * jax.nn.log_sigmoid(margin_B) - smoothing * jax.nn.log_sigmoid(
        -margin_B
    )


def _robust(margin_B: jax.Array, beta: float, smoothing: float) -> jax.Array:
    """(−(1−ε)·log σ(m) + ε·log σ(−m)) / (1 − 2ε): unbiased where labels are flipped with ε."""
    del beta
    right = -(1 - smoothing) * jax.nn.log_sigmoid(margin_B)
    return (right + smoothing * jax.nn.log_sigmoid(-margin_B)) / (1 - 2 * smoothing)


PREFERENCES: dict[str, Preference] = {
    # −log σ(β(W − L)), arXiv 2305.18290; with ε cDPO.
    "sigmoid": Preference(lambda p, b, _: b * _sums(p), _logistic, smooths=True),
    # arXiv 2403.00409.
    "robust": Preference(lambda p, b, _: b * _sums(p), _robust, smooths=True),
    # max(0, 1 − β(W − L)), arXiv 2305.10425.
    "hinge": Preference(lambda p, b, _: b * _sums(p), lambda m, *_: jax.nn.relu(1 - m)),
    # (W/n_w − L/n_l − 1/(2β))², arXiv 2310.12036; the division by the length as TRL has it.
    "ipo": Preference(lambda p, *_: _means(p), lambda m, b, _: jnp.square(m - 1 / (2 * b))),
    # −log σ(β(W/n_w − L/n_l)): lowering every token by the same amount does not move it.
    "sigmoid_norm": Preference(lambda p, b, _: b * _means(p), _logistic),
    # −log σ(β(mean log π of chosen − of rejected − γ/β)), arXiv 2405.14734.
    "simpo": Preference(
        lambda p, b, g: b * (_policy_means(p) - g), _logistic, uses_reference=False
    ),
}


def check(kind: str, *, smoothing: float = 0.0, target: float = 0.0) -> None:
    """Raises ConfigError: an unknown kind, or a setting that this kind does not read."""
    if kind not in PREFERENCES:
        raise ConfigError(f"loss={kind!r}", wanted=f"one of {', '.join(PREFERENCES)}")
    if not 0 <= smoothing < 0.5 or (smoothing and not PREFERENCES[kind].smooths):
        raise ConfigError(
            f"label_smoothing={smoothing} with loss={kind}",
            wanted="0 ≤ ε < 0.5, and 0 unless the loss is sigmoid or robust",
        )
    if target and kind != "simpo":
        raise ConfigError(f"target_margin={target} with loss={kind}", wanted="0, or loss=simpo")


def preference_loss(
    pairs: Pairs, kind: str, *, beta: float, smoothing: float = 0.0, target: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Loss and optimised margin of each pair.

    Args:
        pairs: see Pairs; the reference's arrays get no gradient.
        kind: a key of PREFERENCES.
        beta: β > 0.
        smoothing: ε in [0, 0.5), the probability that a label is wrong; sigmoid and robust alone.
        target: γ/β ≥ 0, the margin that simpo asks for.

    Returns:
        (loss_B, margin_B), f32 [B]. The margin is what this loss raises, not always β(W − L).

    Raises:
        ConfigError: an unknown kind, or a setting that this kind does not read.
    """
    check(kind, smoothing=smoothing, target=target)
    chosen = PREFERENCES[kind]
    chex.assert_rank(list(pairs), 1)
    chex.assert_equal_shape(list(pairs))
    reference = (jax.lax.stop_gradient(x) for x in (pairs.ref_chosen_B, pairs.ref_rejected_B))
    pairs = pairs._replace(**dict(zip(("ref_chosen_B", "ref_rejected_B"), reference, strict=True)))
    margin_B = chosen.margin(pairs, beta, target)
    return chosen.loss(margin_B, beta, smoothing), margin_B
