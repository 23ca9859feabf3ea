"""Calibration: how far confidence differs from the probability of being right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.evaluation import candidates, selection
from distill_jax.evaluation.candidates import Candidate

BINS = 10


def calibration(confidence_N: np.ndarray, right_N: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """The expected calibration error (ECE) over bins of equal width, with its bins.

    ECE = Σ over bins of n_b/N · |mean confidence_b − share right_b|. A value on a bound is in the
    upper bin, 1 in the last one. With few values in a bin ECE is too high: a bin's gap is never
    negative. Source: Naeini et al. 2015.

    Args:
        confidence_N: in [0, 1].
        right_N: bool, or a share in [0, 1].

    Returns:
        "ece", None without values; "count"; "bins": low, high, count, and the means confidence
        and right, None in an empty bin.
    """
    confidence_N = np.asarray(confidence_N, np.float64)
    right_N = np.asarray(right_N, np.float64)
    place_N = np.minimum((confidence_N * bins).astype(int), bins - 1)
    rows, gap = [], 0.0
    for number in range(bins):
        inside = place_N == number
        count = int(inside.sum())
        gap += abs(float(np.sum(confidence_N[inside] - right_N[inside])))
        rows.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "count": count,
                "confidence": float(confidence_N[inside].mean()) if count else None,
                "right": float(right_N[inside].mean()) if count else None,
            }
        )
    total = len(confidence_N)
    return {"ece": gap / total if total else None, "count": total, "bins": rows}


def of_votes(
    found: Sequence[Sequence[Candidate]], weights: Sequence[float], selector: str
) -> dict[str, Any]:
    """Calibration of the winning group's share of the votes as the probability of being right.

    Args:
        found: candidates of each problem, judged.
        weights: of the agents.
        selector: one that votes.

    Returns:
        As `calibration`, and "without": the number of problems in no bin, which have no answer, no
        vote above 0, or an answer that the check is undecided about.
    """
    pairs = []
    for some in map(candidates.ordered, found):
        chosen = candidates.choose(some, weights, selector)
        if chosen is None or chosen.right is None:
            continue
        share = selection.confidence(candidates.votes(some, weights), some.index(chosen), selector)
        if share is not None:
            pairs.append((share, chosen.right))
    made = calibration(np.array([one for one, _ in pairs]), np.array([one for _, one in pairs]))
    return {**made, "without": len(found) - len(pairs)}
