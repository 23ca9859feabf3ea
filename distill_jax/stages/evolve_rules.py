"""Which solutions a round of self-evolution learns on, which student it ends with, when it stops.

The task's verdict comes first: a reward model ranks and filters right solutions, it admits no wrong
one.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Solution(NamedTuple):
    """A solution, as the rules see it.

    Attributes:
        problem: number of its problem.
        key: of what it says, see `Task.key`; solutions of one key count once.
        right: verdict of the task; False where it did not end.
        score: of the reward model; NaN where there is none.
        undecided: the task has no verdict.
        guess: right without the work: a hard-coded or bare answer.
    """

    problem: int
    key: str
    right: bool
    score: float = math.nan
    undecided: bool = False
    guess: bool = False


def accepted(
    found: Sequence[Solution],
    *,
    threshold: float | None,
    per_problem: int,
    known: Mapping[int, Collection[str]] | None = None,
) -> list[int]:
    """Places of the solutions that are accepted, ascending.

    Right ones that are no guesses, of different keys, the best-scored first and of equal ones the
    first.

    Args:
        found: solutions of a round.
        threshold: a score must be above it, and NaN is not; None: no reward model.
        per_problem: most solutions of a problem.
        known: keys of each problem that are not taken again.
    """
    before = known or {}
    taken: dict[int, set[str]] = {}
    out = []
    for place in sorted(range(len(found)), key=lambda i: (-_or_zero(found[i].score), i)):
        one = found[place]
        mine = taken.setdefault(one.problem, set())
        if not one.right or one.guess or (threshold is not None and not one.score > threshold):
            continue
        if one.key in mine or one.key in before.get(one.problem, ()) or len(mine) == per_problem:
            continue
        mine.add(one.key)
        out.append(place)
    return sorted(out)


def pooled(problem_RN: Sequence[Sequence[int]], per_problem: int) -> list[tuple[int, int]]:
    """(round, place) of the accepted solutions of all rounds that are learnt on, ascending.

    The newest rounds fill a problem's places first.

    problem_RN: number of the problem of each solution that each round accepted, oldest first.
    """
    count: Counter[int] = Counter()
    out = []
    for number in reversed(range(len(problem_RN))):
        for place, problem in enumerate(problem_RN[number]):
            count[problem] += 1
            if count[problem] <= per_problem:
                out.append((number, place))
    return sorted(out)


def level_capped(
    problems: Sequence[int], levels: Sequence[int | None], ratio: float, seed: Sequence[int]
) -> list[int]:
    """Places that are kept when no level may have more than its cap, ascending.

    The cap is `ratio` times an equal share: ⌈ratio · N / levels among them⌉. A level above it keeps
    a first solution of each problem before second ones, problems in an order that the seed draws.

    Args:
        problems, levels: of the N solutions.
        ratio: 0 keeps all.
        seed: of the order.
    """
    if not ratio or not levels:
        return list(range(len(levels)))
    cap = math.ceil(ratio * len(levels) / len(set(levels)))
    seen: Counter[int] = Counter()
    nth = []
    for problem in problems:
        nth.append(seen[problem])
        seen[problem] += 1
    of_problem = {p: i for i, p in enumerate(sorted(set(problems)))}
    drawn = np.random.default_rng(seed).permutation(len(of_problem))
    kept: list[int] = []
    for level in dict.fromkeys(levels):
        mine = [i for i, one in enumerate(levels) if one == level]
        mine.sort(key=lambda i: (nth[i], drawn[of_problem[problems[i]]]))
        kept += mine[:cap]
    return sorted(kept)


def filter_figures(found: Sequence[Solution], threshold: float) -> dict[str, float | None]:
    """What the reward model's threshold does to decided solutions; a share of none is None.

    scored: solutions with a score; acceptance_rate: of these, above the threshold; precision: right
    ones among those above; recall: above among the right ones; base_rate: right ones among scored.
    """
    scored = [one for one in found if not one.undecided and not math.isnan(one.score)]
    right = [one for one in scored if one.right]
    above = [one for one in scored if one.score > threshold]
    both = sum(one.right for one in above)
    return {
        "scored": len(scored),
        "acceptance_rate": _share(len(above), len(scored)),
        "precision": _share(both, len(above)),
        "recall": _share(both, len(right)),
        "base_rate": _share(len(right), len(scored)),
    }


class HeldOut(NamedTuple):
    """Shares of held-out problems: pass@1 and pass@k."""

    pass_1: float
    pass_k: float


def why_stop(rounds: Sequence[HeldOut], *, patience: int, margin: float) -> str:
    """Why no further round is run; "" where one is.

    Args:
        rounds: the student before the first round, then after each.
        patience: rounds in succession in which pass@1 did not rise above all earlier ones.
        margin: pass@k may be so much below that of the round before.
    """
    if len(rounds) > 1 and rounds[-1].pass_k < rounds[-2].pass_k - margin:
        return "pass@k fell"
    best = max(range(len(rounds)), key=lambda i: (rounds[i].pass_1, -i))
    return "pass@1 did not rise" if len(rounds) - 1 - best >= patience else ""


def best_round(rounds: Sequence[HeldOut]) -> int:
    """The round, from 1, whose student has the highest pass@1; of equal ones the first."""
    return max(range(1, len(rounds)), key=lambda i: (rounds[i].pass_1, -i))


def first_low(scores: Sequence[float], threshold: float) -> int | None:
    """The first step whose score is not above the threshold; None where all are."""
    return next((i for i, score in enumerate(scores) if not score > threshold), None)


def _or_zero(score: float) -> float:
    return 0.0 if math.isnan(score) else score


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
