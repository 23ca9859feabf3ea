"""How well a process reward model's scores of steps agree with their labels."""

from collections.abc import Sequence

import numpy as np

from distill_jax.evaluation import process_bench
from distill_jax.evaluation.calibration import calibration
from distill_jax.evaluation.process_bench import NONE_WRONG

# A step with a lower score counts as wrong.
THRESHOLD = 0.5
_TINY = 1e-7


def figures(
    scores: Sequence[np.ndarray], labels: Sequence[Sequence[float | None]]
) -> dict[str, float]:
    """The figures of N solutions, without those that are not defined, e.g. auc of one class.

    loss and loss_minus_floor in nats a step; brier; ece over ten bins of equal width; accuracy,
    balanced_accuracy; auc; precision and recall of wrong steps; first_error_accuracy, f1: exact
    matches of the first wrong step as in ProcessBench; share_min_at_last: solutions of two or more
    steps whose lowest score is the last, many where a model judges outcomes alone. The threshold is
    1/2 throughout, for labels too.

    Args:
        scores: P(right) of each step.
        labels: in [0, 1], as many; None: not labelled.
    """
    p = np.concatenate([np.asarray(one, float) for one in scores])
    y = np.array([np.nan if one is None else one for row in labels for one in row])
    kept = np.isfinite(y)
    p, y = p[kept], y[kept]
    found = {**_agreement(p, y), **_errors(p, y), **_first_errors(scores, labels)}
    many = [one for one in scores if len(one) > 1]
    found["share_min_at_last"] = _mean([float(np.argmin(one) == len(one) - 1) for one in many])
    return {name: float(value) for name, value in found.items() if value is not None}


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _agreement(p: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    def entropy(q: np.ndarray) -> np.ndarray:
        q = np.clip(q, _TINY, 1 - _TINY)
        return -(y * np.log(q) + (1 - y) * np.log(1 - q))

    loss = _mean(entropy(p))
    floor = _mean(entropy(y))
    return {
        "loss": loss,
        "loss_minus_floor": None if loss is None or floor is None else loss - floor,
        "brier": _mean((p - y) ** 2),
        "ece": calibration(p, y)["ece"],
    }


def _errors(p: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    said, wrong = p < THRESHOLD, y < THRESHOLD
    hit = said == wrong
    classes = [_mean(hit[wrong]), _mean(hit[~wrong])]
    return {
        "accuracy": _mean(hit),
        "balanced_accuracy": _mean([share for share in classes if share is not None]),
        "auc": process_bench.auc(p.tolist(), (~wrong).tolist()),
        "precision": _mean(wrong[said]),
        "recall": classes[0],
    }


def _first_errors(
    scores: Sequence[np.ndarray], labels: Sequence[Sequence[float | None]]
) -> dict[str, float | None]:
    """Up to the last labelled step: what comes after it may be right or wrong."""
    said, wrong = [], []
    for score_S, label_S in zip(scores, labels, strict=True):
        known = [i for i, y in enumerate(label_S) if y is not None]
        errors = [i for i in known if (label_S[i] or 0.0) < THRESHOLD]
        if known:
            said.append(process_bench.first_wrong(score_S[: known[-1] + 1].tolist(), THRESHOLD))
            wrong.append(errors[0] if errors else NONE_WRONG)
    found = process_bench.f1(said, wrong)
    return {"first_error_accuracy": found.acc_error, "f1": found.f1}
