"""Llama 3's rope scaling as a GGUF file holds it: a factor for each wavelength."""

import math
from collections.abc import Iterator

import numpy as np

from distill_jax.models.rope_scaling import Llama3Scaling

FACTORS = "rope_freqs.weight"
_USUAL_CONTEXT = 8192  # of Llama 3.1 and later
_ALIKE, _NEAR = 1e-5, 1e-3  # relative differences: of rounding; of other programs' arithmetic


def factors_of(scaling: Llama3Scaling, theta: float, size: int) -> np.ndarray:
    """What a scaling multiplies each wavelength by: float32 [head_dim / 2], size: head_dim."""
    plain = (theta ** -(np.arange(0, size, 2) / size)).astype(np.float32)
    return plain / scaling.frequencies(plain, theta)


def scaling_of(factors: np.ndarray, theta: float) -> Llama3Scaling | None:
    """A scaling with these factors, None if there is none.

    A file holds neither the scaling's parameters nor its name. Only the ratios of context,
    low_freq_factor and high_freq_factor have an effect: the last two are 1 and 4, as in all
    released models, if these explain the factors.

    Args:
        factors: float32 [head_dim / 2], of decreasing frequencies.
        theta: base of the rotary frequencies.
    """
    if not (np.isfinite(factors) & (factors > 1 - _NEAR)).all():
        return None

    def difference(scaling: Llama3Scaling) -> float:
        own = factors_of(scaling, theta, 2 * len(factors))
        return float(np.abs(factors / own - 1).max())

    apart = [(one, difference(one)) for one in _candidates(factors.astype(np.float64), theta)]
    fit = (one for bound in (_ALIKE, _NEAR) for one, worst in apart if worst <= bound)
    return next(fit, None)


def _candidates(factors: np.ndarray, theta: float) -> Iterator[Llama3Scaling]:
    """Scalings that can have made the factors, the likeliest first."""
    most = max(float(factors.max()), 1.0)
    yield Llama3Scaling(most, _USUAL_CONTEXT)
    if most == 1.0:
        return
    # Radians a token; k: 0 for slow ones, 1 for fast ones, linear in the frequency between.
    plain = theta ** -(np.arange(len(factors)) / len(factors))
    k = (1 / factors - 1 / most) / (1 - 1 / most)
    between = (k > _ALIKE) & (k < 1 - _ALIKE)
    slow = plain[k <= _ALIKE].max()
    fast = plain[k >= 1 - _ALIKE].min(initial=math.inf)
    # With 1 and 4: a pair between turns 1 + 3k times over the context, a slow one at most once.
    turns = (1 + 3 * k[between]) / plain[between]
    if not turns.size:
        turns = np.array([math.sqrt(4 / fast / slow) if math.isfinite(fast) else 1 / slow])
    yield Llama3Scaling(most, max(1, round(2 * math.pi * float(np.median(turns)))))
    # Any two: from the line k = slope * (plain - low).
    if np.count_nonzero(between) > 1:
        slope, start = np.polyfit(plain[between], k[between], 1)
        low = -start / slope
    elif between.any():
        x, y = float(plain[between][0]), float(k[between][0])
        slope = max(y / (x - slow), (1 - y) / (fast - x))
        low = x - y / slope
    else:
        low, slope = slow, 1 / (min(fast, 2 * slow) - slow)
    if low > 0 and slope > 0:
        context = max(1, round(2 * math.pi / low))
        a_turn = context / (2 * math.pi)
        yield Llama3Scaling(most, context, a_turn * low, a_turn * (low + 1 / slope))
