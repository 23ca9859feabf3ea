"""Signs that a model earns its reward by form rather than by reasoning: length, loops, hedging."""

import re
from collections.abc import Sequence

import numpy as np

from distill_jax import answers

NGRAM = 4
LOOP_TOKENS = 64
LOOP_PERIOD = 16

_BOX = re.compile(r"\\f?boxed\{([^{}]*(?:\{[^{}]{0,200}\}[^{}]*){0,8})\}")
_STATED = re.compile(
    r"\b(?:final )?answer(?:\s+is|\s*[:=])[\s:*$]{0,9}([-+]?[0-9][0-9,]{0,40}(?:\.[0-9]{1,40})?"
    r"(?:/[0-9]{1,40})?)|####[ \t]*([-+$0-9(\[{\\.√π][^\n]{0,200})",
    re.IGNORECASE,
)
MAX_TEXT = 100_000


def indicators(
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    ended: Sequence[bool],
    rewards_B: np.ndarray,
    stated: Sequence[str | None],
) -> dict[str, float | None]:
    """Indicators of a set of completions, flat; none of them is a proof.

    Args:
        texts: B decoded completions.
        tokens: their tokens, EOS counted where there is one, no padding.
        ended: whether each ended by itself (EOS) and was not cut off.
        rewards_B: of each completion, float.
        stated: the final answer of each, None for none.

    Returns:
        Lengths in tokens; shares that are truncated (no EOS), are looping, give several or no
        answers; repeated_ngrams, a mean over those long enough; reward_length_correlation
        (Pearson). None without completions, or where a figure is not defined.
    """
    length_B = np.array([len(row) for row in tokens], float)
    repeated = [share for row in tokens if (share := repeated_ngrams(row)) is not None]
    return {
        "length_mean": _mean(length_B),
        **{f"length_p{p}": _percentile(length_B, p) for p in (10, 50, 90)},
        "length_max": _percentile(length_B, 100),
        "truncated": _mean([not e for e in ended]),
        "repeated_ngrams": _mean(repeated),
        "looping": _mean([loops(row) for row in tokens]),
        "several_answers": _mean([several_answers(text) for text in texts]),
        "no_answer": _mean([one is None for one in stated]),
        "reward_length_correlation": correlation(length_B, rewards_B),
    }


def repeated_ngrams(tokens: Sequence[int], n: int = NGRAM) -> float | None:
    """1 − distinct/all n-grams of a completion, in [0, 1); None below n tokens.

    Source: the distinct-n of Li et al. 2016 (arXiv 1510.03055), counted from the other end.
    """
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else None


def loops(tokens: Sequence[int], last: int = LOOP_TOKENS, period: int = LOOP_PERIOD) -> bool:
    """Whether the `last` tokens repeat with a period of at most `period`; an EOS ends a loop."""
    tail = list(tokens[-last:])
    return len(tail) == last and any(tail[p:] == tail[:-p] for p in range(1, period + 1))


def several_answers(text: str) -> bool:
    r"""Whether the text states different final answers: `\boxed{}`, "the answer is", `####`.

    Statements that the answer check knows to be equal are one; a corrected answer counts as
    several, and so do two boxes of one list: this counts, it does not judge.
    """
    text = text[-MAX_TEXT:]
    stated = [match[1] for match in _BOX.finditer(text)]
    stated += [match[1] or match[2] for match in _STATED.finditer(text)]
    distinct = list(dict.fromkeys(s.strip().rstrip(".") for s in stated if s.strip()))
    # Two that differ are enough, and a text that states thousands must not cost as many checks.
    return any(answers.equivalent(distinct[0], s).verdict == "wrong" for s in distinct[1:20])


def correlation(x_B: np.ndarray, y_B: np.ndarray) -> float | None:
    """Pearson's correlation, in [−1, 1]; None below two values or where one side is constant."""
    if len(x_B) < 2 or np.ptp(x_B) == 0 or np.ptp(y_B) == 0:
        return None
    x_B, y_B = x_B - np.mean(x_B), y_B - np.mean(y_B)
    size = float(np.linalg.norm(x_B) * np.linalg.norm(y_B))
    return float(np.clip(np.dot(x_B, y_B) / size, -1.0, 1.0)) if size > 0 else None


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _percentile(values: np.ndarray, p: float) -> float | None:
    return float(np.percentile(values, p)) if len(values) else None
