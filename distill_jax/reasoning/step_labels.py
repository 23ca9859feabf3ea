"""Labels of steps, derived from how often completions of each prefix ended right."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from distill_jax import answers
from distill_jax.core.errors import ConfigError

LABELS = ("hard", "soft", "relative")


class Counts(NamedTuple):
    """Completions of one prefix by verdict; undecided ones say nothing of its rate."""

    right: int
    wrong: int
    undecided: int = 0

    @property
    def rate(self) -> float | None:
        """Share of right ones among those decided; None where none is."""
        decided = self.right + self.wrong
        return self.right / decided if decided else None


def first_wrong(counts: Sequence[Counts | None]) -> int:
    """The first prefix from which no decided completion ends right, from 0; −1 where none is."""
    rates = [None if one is None else one.rate for one in counts]
    return next((step for step, rate in enumerate(rates) if rate == 0.0), -1)


def labels(
    counts: Sequence[Counts | None], root: Counts, kind: str, threshold: float = 0.0
) -> list[float | None]:
    """The label of each step; None for a step that is not labelled.

    hard: 1 where the rate is above the threshold, else 0 (Math-Shepherd, arXiv 2312.08935). soft:
    the rate. relative: min(1, rate / rate of the bare prompt). Steps after the first that is 0 are
    not labelled, as in PRM800K. Where no completion at all was right, the bare prompt's included,
    nothing is: that says more of the completer than of the steps.

    Args:
        counts: of the prefix that ends with each step; None where none were drawn.
        root: of the bare prompt.
        kind: one of LABELS.
        threshold: of hard labels.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in LABELS:
        raise ConfigError(f"labels={kind!r}", wanted=f"one of {', '.join(LABELS)}")
    hopeless = not root.right and not any(one is not None and one.right for one in counts)
    if hopeless or (kind == "relative" and not root.right):
        return [None] * len(counts)
    out: list[float | None] = []
    for one in counts:
        rate = None if one is None else one.rate
        if rate is None or 0.0 in out:
            out.append(None)
        elif kind == "hard":
            out.append(float(rate > threshold))
        else:
            out.append(rate if kind == "soft" else min(1.0, rate / (root.rate or 1.0)))
    return out


def judged_first_wrong(text: str, steps: int) -> int | None:
    r"""The index in a judge's last \boxed{}: 0..steps−1, or −1; None where it is none of these."""
    found = answers.extract(text)
    if found is None or "\\boxed" not in text:
        return None
    try:
        index = int(found.text)
    except ValueError:
        return None
    return index if -1 <= index < steps else None


def agreement(
    counted: Sequence[int], judged: Sequence[int | None]
) -> tuple[list[bool], dict[str, int]]:
    """(whether both name the same first wrong step, a table of how they agree), row by row."""
    cells: Counter[str] = Counter()
    same = []
    for one, other in zip(counted, judged, strict=True):
        same.append(other is not None and one == other)
        if other is None:
            cells["undecided by the judge"] += 1
        elif one == other:
            cells["both none" if one == -1 else "both the same step"] += 1
        elif -1 in (one, other):
            cells["counts alone" if other == -1 else "judge alone"] += 1
        else:
            cells["other steps"] += 1
    return same, dict(cells)
