"""More completions than are trained on: right ones kept by their faults, wrong ones at random.

GRPO-RoC (rStar2-Agent, arXiv 2508.20722): a wrong answer shows how the policy fails, so none is
preferred; of right answers the ones without faults are better examples. The share of right answers
stays about that of the draw. Length is no fault: term length has its own gate and bound.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from distill_jax.rollout.groups import Drawn
from distill_jax.rollout.sampler import Rollout
from distill_jax.tasks import Judged

# The last word of Philox's counter, which keeps these draws apart from others under the same key.
_STREAM = 5
_LEAST = 2  # of right and of wrong ones, where there are
_WORDS = 4


class Seen(NamedTuple):
    """A right completion: the model's own text, whether it ended with EOS, the answer that it was
    judged by, and whether its last turn is void (`rounds.void_turns`): it leaves the loss."""

    text: str
    ended: bool
    stated: str | None
    void: bool


# -> fault in [0, 1].
Fault = Callable[[Seen], float]


def repeats(text: str) -> float:
    """Share of the text's runs of four words that occurred before; 0 for a shorter text."""
    words = text.split()
    runs = [tuple(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


FAULTS: dict[str, Fault] = {
    "cut_off": lambda seen: float(not seen.ended),
    # The task's notion of it: what stands around a program has no say.
    "not_stated": lambda seen: float(seen.stated is None),
    "repeats": lambda seen: repeats(seen.text),
    "void": lambda seen: float(seen.void),
}


class Kept(NamedTuple):
    """The completions that are trained on, judged, and counts over all that were drawn."""

    drawn: Drawn
    judged: Judged
    counts: dict[str, float]


def keep(
    drawn: Drawn,
    judged: Judged,
    samples: int,
    *,
    seed: int,
    step: int,
    number: int,
    void_B: np.ndarray | None = None,
) -> Kept:
    """`samples` completions of each problem, in the order in which they were drawn.

    Args:
        drawn, judged: P groups of at least `samples` completions; the same on every process.
        samples: G, at least 4.
        seed, step, number: of the stage, the step and the draw within it; nothing else is random.
        void_B: bool, whether a completion's last turn is void; None: none is.
    """
    fault_B = np.zeros(len(drawn.texts))
    for row in np.flatnonzero(judged.right_B):
        void, ended = void_B is not None and bool(void_B[row]), bool(drawn.rollout.ended_B[row])
        seen = Seen(drawn.texts[row], ended, judged.stated[row], void)
        fault_B[row] = sum(fault(seen) for fault in FAULTS.values())
    bits = np.random.Philox(key=[seed, step], counter=[number, 0, 0, _STREAM])
    uniform_PN = np.random.Generator(bits).random((len(drawn.problems), drawn.samples))
    kind_B = np.where(judged.right_B, 1, np.where(judged.undecided_B, -1, 0))
    rows = [
        at * drawn.samples + choose(kind_N, fault_N, uniform_N, samples)
        for at, (kind_N, fault_N, uniform_N) in enumerate(
            zip(_groups(kind_B, drawn), _groups(fault_B, drawn), uniform_PN, strict=True)
        )
    ]
    row_B = np.concatenate(rows)
    counts = _counts(kind_B, fault_B, drawn.rollout.length_B, row_B)
    return Kept(*_take(drawn, judged, row_B), counts)


def choose(
    kind_N: np.ndarray, fault_N: np.ndarray, uniform_N: np.ndarray, samples: int
) -> np.ndarray:
    """Which of a group's N completions to keep, int [samples], ascending.

    Right and wrong ones are kept in about their shares, at least two of each where there are.
    Undecided ones teach nothing and only fill up. Of right ones, those of fault f (the sum of
    FAULTS) are drawn without replacement with weight 10^−f; the base is our choice, unmeasured.

    Args:
        kind_N: 1 right, 0 wrong, −1 undecided.
        fault_N: read where right.
        uniform_N: in [0, 1), one a completion.
        samples: G ≤ N, at least 4.
    """
    right, wrong, unknown = (np.flatnonzero(kind_N == kind) for kind in (1, 0, -1))
    decided = len(right) + len(wrong)
    rights = len(right)
    if decided > samples:
        share = (2 * samples * len(right) + decided) // (2 * decided)  # rounded half up
        rights = max(share, min(_LEAST, len(right)), samples - len(wrong))
        rights = min(rights, len(right), samples - min(_LEAST, len(wrong)))
    wrongs = min(len(wrong), samples - rights)
    # The least of E/w, with E exponential, are a draw without replacement with weights w
    # (Efraimidis and Spirakis 2006).
    place_N = -np.log1p(-uniform_N) * 10.0 ** np.where(kind_N == 1, fault_N, 0.0)
    parts = ((right, rights), (wrong, wrongs), (unknown, samples - rights - wrongs))
    return np.sort(
        np.concatenate([rows[np.argsort(place_N[rows], kind="stable")[:n]] for rows, n in parts])
    )


def total(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a step from the counts of its draws; nothing without a draw."""
    if not counts:
        return {}
    summed = {name: sum(one[name] for one in counts) for name in counts[0]}

    def mean(name: str) -> float:
        return summed[f"faults_{name}"] / max(summed[f"{name}_right"], 1.0)

    drawn = sum(summed[f"{what}_{kind}"] for what in _WHAT for kind in _KINDS)
    right = sum(summed[f"{what}_right"] for what in _WHAT)
    summed |= {"faults_kept": mean("kept"), "faults_dropped": mean("dropped")}
    summed["accuracy"] = right / drawn
    return {f"oversample/{name}": value for name, value in summed.items()}


_WHAT, _KINDS = ("kept", "dropped"), {"right": 1, "wrong": 0, "undecided": -1}


def _counts(
    kind_B: np.ndarray, fault_B: np.ndarray, length_B: np.ndarray, row_B: np.ndarray
) -> dict[str, float]:
    kept_B = np.isin(np.arange(len(kind_B)), row_B)
    counts = {}
    for what, of_B in zip(_WHAT, (kept_B, ~kept_B), strict=True):
        for name, kind in _KINDS.items():
            counts[f"{what}_{name}"] = float(np.sum(of_B & (kind_B == kind)))
        counts[f"faults_{what}"] = float(fault_B[of_B].sum())
    counts["dropped_tokens"] = float(length_B[~kept_B].sum())
    return counts


def _groups(value_B: np.ndarray, drawn: Drawn) -> np.ndarray:
    return value_B.reshape(len(drawn.problems), drawn.samples)


def _take(drawn: Drawn, judged: Judged, row_B: np.ndarray) -> tuple[Drawn, Judged]:
    rollout = Rollout(*(array[row_B] for array in drawn.rollout))
    texts, details, stated = (
        [given[i] for i in row_B] for given in (drawn.texts, judged.details, judged.stated)
    )
    kept = Drawn(drawn.problems, drawn.prompts, rollout, texts)
    return kept, Judged(judged.right_B[row_B], judged.undecided_B[row_B], details, stated)
