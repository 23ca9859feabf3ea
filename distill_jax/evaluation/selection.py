"""Selectors: which of a problem's candidates is the answer; expected accuracy of k candidates.

Candidates are in the order of (agent, attempt), so that ties do not depend on the order in which
they were drawn or scored.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distill_jax import answers

SELECTORS = ("first", "majority", "best", "weighted", "weighted_verdict")
# What a candidate's vote is multiplied by under `weighted_verdict`.
VERDICT_WEIGHTS = {"correct": 1.0, "unsure": 0.5, "incorrect": 0.0}
# Up to this many subsets are counted one by one; more are drawn.
_EXACT_SUBSETS = 256


class Votes(NamedTuple):
    """The arrays that selectors read, for the N candidates of a problem.

    Attributes:
        group_N: int, the candidate's group of equivalent answers; −1 without an answer.
        score_N: f64 in [0, 1] of the reward model; NaN where it gave none.
        weight_N: f64 ≥ 0, of the agent.
        verdict_N: "correct", "incorrect" or "unsure", of the verifier.
    """

    group_N: np.ndarray
    score_N: np.ndarray
    weight_N: np.ndarray
    verdict_N: Sequence[str]


def groups(found: Sequence[str | None]) -> np.ndarray:
    """The group of each answer, int [N]: the first one whose first member equals the answer.

    −1 for None: a candidate without an answer has no vote.
    """
    firsts: list[str] = []
    of_text: dict[str, int] = {}  # the same text needs no check
    for text in found:
        if text is not None and text not in of_text:
            equal = (i for i, one in enumerate(firsts) if answers.equivalent(one, text).right)
            of_text[text] = next(equal, len(firsts))
            if of_text[text] == len(firsts):
                firsts.append(text)
    return np.array([-1 if text is None else of_text[text] for text in found], np.int64)


def select(votes: Votes, selector: str) -> int | None:
    """The chosen candidate, the best-scored of its group; None where no candidate has an answer.

    first: the first candidate with an answer. majority: the largest group. best: the highest
    score. weighted: the group of the largest sum of agent's weight × score. weighted_verdict: the
    same with each term times VERDICT_WEIGHTS. Scores that are NaN count as 0. Of equal groups the
    one with the higher best score wins, then the one that comes first; of equal candidates the
    first.
    """
    if selector not in SELECTORS:
        raise ValueError(f"selector {selector!r}, wanted one of {', '.join(SELECTORS)}")
    voting = np.flatnonzero(votes.group_N >= 0)
    if not voting.size:
        return None
    if selector == "first":
        return int(voting[0])
    score_N = np.nan_to_num(votes.score_N, nan=0.0)
    if selector == "best":
        return int(max(voting, key=lambda i: (score_N[i], -i)))
    members = {group: voting[votes.group_N[voting] == group] for group in votes.group_N[voting]}
    winner = max(members.values(), key=lambda at: _strength(votes, selector, at, score_N))
    return int(max(winner, key=lambda i: (score_N[i], -i)))


def _strength(
    votes: Votes, selector: str, at: np.ndarray, score_N: np.ndarray
) -> tuple[float, float, int]:
    weight = votes.weight_N[at]
    if selector != "majority":
        weight = weight * score_N[at]
    if selector == "weighted_verdict":
        weight = weight * np.array([VERDICT_WEIGHTS[votes.verdict_N[i]] for i in at])
    return math.fsum(weight), float(score_N[at].max()), -int(at[0])


def confidence(votes: Votes, chosen: int, selector: str) -> float | None:
    """The share of the votes of the chosen candidate's group; None where all votes are 0."""
    score_N = np.nan_to_num(votes.score_N, nan=0.0)
    total = {
        group: _strength(votes, selector, np.flatnonzero(votes.group_N == group), score_N)[0]
        for group in set(votes.group_N[votes.group_N >= 0].tolist())
    }
    everything = math.fsum(total.values())
    return total[int(votes.group_N[chosen])] / everything if everything else None


def best_of_k(score_N: np.ndarray, right_N: np.ndarray, k: int) -> float:
    """Probability that the best-scored of k candidates is right; unbiased from N ≥ k of them.

    Over all subsets of k: Σ over blocks of equal scores of P(the block holds the maximum) × its
    share of right ones; for a block on ranks i+1..j of N, P = (C(j,k) − C(i,k)) / C(N,k).

    Args:
        score_N: a candidate without a score (NaN) is below all others.
        right_N: bool or 0/1.
        k: 1..N.
    """
    n = len(score_N)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} of {n} candidates, wanted 1 to {n}")
    score_N = np.where(np.isnan(score_N), -np.inf, score_N)
    order = np.argsort(score_N, kind="stable")
    total, start = 0.0, 0
    for _, block in itertools.groupby(order, key=lambda i: score_N[i]):
        rows = list(block)
        stop = start + len(rows)
        chance = (math.comb(stop, k) - math.comb(start, k)) / math.comb(n, k)
        total += chance * float(np.mean(np.asarray(right_N, float)[rows]))
        start = stop
    return total


def expected(
    votes: Votes,
    right_N: np.ndarray,
    k: int,
    selector: str,
    *,
    draws: int = 64,
    rng: Callable[[], np.random.Generator] = lambda: np.random.default_rng(0),
) -> tuple[float, int]:
    """(mean of right over subsets of k candidates under a selector, number of subsets).

    All subsets if there are at most 256, else `draws` random ones. A subset in which nothing is
    chosen counts as wrong.
    """
    n = len(right_N)
    if math.comb(n, k) <= _EXACT_SUBSETS:
        subsets = [list(one) for one in itertools.combinations(range(n), k)]
    else:
        drawn = rng()
        subsets = [sorted(drawn.choice(n, k, replace=False).tolist()) for _ in range(draws)]
    hits = 0
    for rows in subsets:
        part = Votes(
            votes.group_N[rows], votes.score_N[rows], votes.weight_N[rows],
            [votes.verdict_N[i] for i in rows],
        )  # fmt: skip
        chosen = select(part, selector)
        hits += chosen is not None and bool(right_N[rows[chosen]])
    return hits / len(subsets), len(subsets)
