"""Normalisers of the intrinsic reward: moving statistics of a centre and of a spread.

A reward of a sequence becomes (x − centre)/spread, which keeps the order of sequences whatever
their lengths. A reward of a token is divided and never shifted: with mean μ < 0, (r − μ)/σ would
add −μ/σ to a sequence for every token that it grows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# {"first", "second", "weight"} f32 []: two running statistics and the weight that they gathered.
State = dict[str, jax.Array]
_IQR_OF_NORMAL = 1.3489795  # quartiles of a normal distribution lie ±.6745 σ from its median


class Normaliser(NamedTuple):
    """measure: (x, mask) -> a batch's two statistics. of: two statistics -> (centre, spread).
    forgets: old batches fade with the momentum; else every value ever seen counts equally."""

    measure: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    of: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    forgets: bool = True


def _moments(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = jnp.maximum(jnp.sum(mask), 1.0)
    return jnp.sum(x * mask) / count, jnp.sum(jnp.square(x) * mask) / count


def _range(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = jnp.min(jnp.where(mask > 0, x, jnp.inf))
    return low, jnp.max(jnp.where(mask > 0, x, -jnp.inf))


def _quartiles(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    kept = jnp.where(mask > 0, x, jnp.nan)
    low, middle, high = jnp.nanquantile(kept, jnp.array([0.25, 0.5, 0.75], jnp.float32))
    return middle, (high - low) / _IQR_OF_NORMAL


def _mean_std(mean: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    return mean, jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0))


NORMALISERS: dict[str, Normaliser] = {
    "rms": Normaliser(_moments, lambda _, square: (jnp.zeros_like(square), jnp.sqrt(square))),
    "mean_std": Normaliser(_moments, _mean_std),
    "z_score": Normaliser(_moments, _mean_std, forgets=False),
    "min_max": Normaliser(_range, lambda low, high: ((high + low) / 2, (high - low) / 2)),
    "robust": Normaliser(_quartiles, lambda middle, spread: (middle, spread)),
}


def fresh() -> State:
    """The state before the first batch."""
    return {name: jnp.zeros((), jnp.float32) for name in ("first", "second", "weight")}


def update(name: str, state: State, x: jax.Array, mask: jax.Array, momentum: float) -> State:
    """The running statistics after this batch.

    s ← μ·s + (1−μ)·batch's, w ← μ·w + (1−μ): s/w is free of the start at 0 (Kingma & Ba 2015,
    section 3). z_score adds the batch's statistics times its count instead. An empty mask, or a
    value that is not finite, changes nothing.

    The rewards x and their mask are f32 of one shape; μ in [0, 1) is the momentum.
    """
    count = jnp.sum(mask)
    x = jnp.where(mask > 0, x, 0.0)
    first, second = NORMALISERS[name].measure(x, mask)
    keep, add = (momentum, 1.0 - momentum) if NORMALISERS[name].forgets else (1.0, count)
    new = {
        "first": keep * state["first"] + add * first,
        "second": keep * state["second"] + add * second,
        "weight": keep * state["weight"] + add,
    }
    use = (count > 0) & jnp.all(jnp.isfinite(x)) & jnp.isfinite(first) & jnp.isfinite(second)
    return jax.tree.map(lambda n, o: jnp.where(use, n, o), new, state)


def centre_and_spread(name: str, state: State, eps: float = 1e-8) -> tuple[jax.Array, jax.Array]:
    """What is subtracted from sequences and what all is divided by, at least eps; 0 and 1 before
    the first update."""
    seen = state["weight"] > 0
    weight = jnp.where(seen, state["weight"], 1.0)
    centre, spread = NORMALISERS[name].of(state["first"] / weight, state["second"] / weight)
    return jnp.where(seen, centre, 0.0), jnp.where(seen, jnp.maximum(spread, eps), 1.0)
