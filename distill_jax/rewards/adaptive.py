"""Adaptive weights of the reward's terms: larger for a term that correlates with right answers.

weight = base · 2^g, where g in [−1, 1] is the running correlation, within the samples of a prompt,
of the term with verified correctness. This is the multiplicative-weights rule (Freund & Schapire
1997, Journal of Computer and System Sciences 55, section 2) with the correlation as the gain and a
running mean instead of a sum, so that a weight stays within [½, 2] times its base. Correctness
keeps its base.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from distill_jax.rewards.terms import TERMS

# Terms whose weights adapt.
ADAPTS = tuple(name for name, term in TERMS.items() if term.adapts)
# {term: {"gain", "weight"}} f32 [], a running sum and the weight that it gathered.
State = dict[str, dict[str, jax.Array]]


def fresh() -> State:
    """The state before the first batch: every weight is its base."""
    return {
        term: {name: jnp.zeros((), jnp.float32) for name in ("gain", "weight")} for term in ADAPTS
    }


def correlation(value_PG: jax.Array, right_PG: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pearson's correlation within groups, pooled over groups, and whether there is one.

    From a term's values (NaN where it does not apply) and correctness, 1 or 0 (NaN where
    undecided), f32: f32 [] in [−1, 1] and bool [], False where no group differs in both.
    """
    known = (jnp.isfinite(value_PG) & jnp.isfinite(right_PG)).astype(jnp.float32)
    count = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1.0)

    def centred(x_PG: jax.Array) -> jax.Array:
        x_PG = jnp.where(known > 0, x_PG, 0.0)
        return (x_PG - jnp.sum(x_PG, axis=1, keepdims=True) / count) * known

    value, right = centred(value_PG), centred(right_PG)
    # A group whose samples are all right or all wrong says nothing about a term.
    differs = jnp.sum(jnp.square(right), axis=1, keepdims=True) > 0
    value = jnp.where(differs, value, 0.0)
    product = jnp.sqrt(jnp.sum(jnp.square(value)) * jnp.sum(jnp.square(right)))
    there = product > 1e-12
    gain = jnp.sum(value * right) / jnp.where(there, product, 1.0)
    return jnp.clip(gain, -1.0, 1.0), there


def update(
    state: State, values_PG: Mapping[str, jax.Array], right_PG: jax.Array, momentum: float
) -> State:
    """The running gains after this batch; a term without a correlation keeps its own."""
    new = dict(state)
    for term, value_PG in values_PG.items():
        gain, there = correlation(value_PG, right_PG)
        old = state[term]
        moved = {
            "gain": momentum * old["gain"] + (1 - momentum) * gain,
            "weight": momentum * old["weight"] + (1 - momentum),
        }
        new[term] = {name: jnp.where(there, moved[name], old[name]) for name in old}
    return new


def gains(state: State) -> dict[str, jax.Array]:
    """Each term's running correlation with correctness, 0 before the first."""
    return {
        term: jnp.where(s["weight"] > 0, s["gain"] / jnp.maximum(s["weight"], 1e-8), 0.0)
        for term, s in state.items()
    }


def multipliers(state: State) -> dict[str, jax.Array]:
    """2^gain of each term: what its base weight is multiplied with."""
    return {term: jnp.exp2(jnp.clip(gain, -1.0, 1.0)) for term, gain in gains(state).items()}
