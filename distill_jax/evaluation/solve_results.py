"""results.json of stage solve: one row per problem; gains of selection, verification, revision.

Fields whose names end in _time measure the machine (`training.records.is_timing`); all others are
the same in every run.
"""

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.evaluation import (
    calibration,
    candidates,
    intervals,
    process_bench,
    revision_results,
    selection,
)
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solved import Solved
from distill_jax.inference.agents import Agent
from distill_jax.inference.search import SearchResult

VOTING = ("majority", "weighted", "weighted_verdict")


def row(
    problem: Problem,
    solved: Solved,
    agents: Sequence[Agent],
    settings: SolveSettings,
    seconds: float | None,
) -> dict[str, Any]:
    """The result of one problem, JSON-able.

    `correct` and `majority_correct` are null without a gold answer or where the check is undecided,
    and false where nothing is selected. For each selector `selected` holds the index of the chosen
    candidate in `candidates`. `votes` maps the first answer of each group of equal answers to the
    number of its candidates, whatever their weights; `confidence` is the winning group's share of
    the selector's votes; `search` counts what a search drew.

    Args:
        solved: its candidates, judged.
        seconds: the time that it took, or None.
    """
    weights, everything = [agent.weight for agent in agents], solved.all
    chosen = {name: candidates.choose(solved.kept, weights, name) for name in settings.selectors}
    best, gold = chosen[settings.selector], problem.answer or None
    kept = candidates.ordered(solved.kept)
    votes, confidence = candidates.votes(kept, weights), None
    if best is not None and settings.selector in VOTING:
        confidence = selection.confidence(votes, kept.index(best), settings.selector)
    group_N = votes.group_N.tolist()
    counts = Counter(str(kept[group_N.index(group)].answer) for group in group_N if group >= 0)

    def correct(one: Candidate | None) -> bool | None:
        return one.right if one is not None else (False if gold else None)

    return {
        "id": problem.id,
        "problem": problem.question,
        "level": problem.level,
        "best_solution": None if best is None else best.text,
        "answer": None if best is None else best.answer,
        "all_solutions": [one.text for one in everything],
        "num_solutions": len(everything),
        "total_time": seconds,
        "reference_answer": gold,
        "correct": correct(best),
        "selector": settings.selector,
        "confidence": confidence,
        "votes": dict(counts),
        "selected": {
            name: None if one is None else everything.index(one) for name, one in chosen.items()
        },
        "candidates": [
            one.row(agents[one.agent].name, kept=one in solved.kept) for one in everything
        ],
        "tokens": tokens(solved),
        "search": None if solved.search is None else _counts(solved.search),
        "revisions": [one._asdict() for one in solved.revisions],
        "pass_at_n": any(one.right for one in solved.kept) if gold else None,
        "majority_correct": correct(chosen["majority"]),
    }


def tokens(solved: Solved) -> dict[str, int]:
    """Tokens generated for a problem: first candidates, revisions, verdicts, and all of them.

    All that a search drew is counted once: dropped beams, and prefixes that candidates share.
    """
    found = solved.all
    revised = sum(len(one.tokens) for one in found if one.round)
    verified = sum(one.verdict_tokens for one in found)
    sampled = sum(len(one.tokens) for one in solved.first)
    if solved.search is not None:
        sampled = solved.search.tokens
    return {
        "sampled": sampled,
        "revised": revised,
        "verified": verified,
        "total": sampled + revised + verified,
    }


def _counts(search: SearchResult) -> dict[str, int]:
    """What a search drew for a problem."""
    names = ("iterations", "steps", "tokens", "duplicates", "dropped")
    return {name: getattr(search, name) for name in names}


def summary(
    problems: Sequence[Problem],
    solved: Sequence[Solved],
    plain: Sequence[Sequence[Candidate]] | None,
    agents: Sequence[Agent],
    settings: SolveSettings,
    *,
    seed: int,
    seconds: float | None,
    resampled: Sequence[Solved] | None = None,
    figures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole results.json.

    Args:
        problems, solved: with gold answers; judged.
        plain: plain samples of the default agent at equal tokens, judged; None: not compared.
        seed: of the subsets of candidates, where not all subsets are counted.
        seconds: mean time of a problem; None where an earlier start drew a part.
        resampled: the control of revision, judged; None: not compared.
        figures: see `judging.task_figures`; None: {}.
    """
    weights = [agent.weight for agent in agents]
    rows = [row(p, one, agents, settings, seconds) for p, one in zip(problems, solved, strict=True)]
    right = _selected([one.kept for one in solved], weights, settings.selectors)
    best_P = right[settings.selector]
    passed_P = np.array([bool(one["pass_at_n"]) for one in rows])
    found = [one for some in solved for one in some.kept]
    out: dict[str, Any] = {
        "num_problems": len(rows),
        "split": settings.split,
        "selector": settings.selector,
        "accuracy": float(best_P.mean()),
        "accuracy_interval": _interval(best_P),
        "undecided": sum(one["correct"] is None for one in rows),
        "answer_rate": float(np.mean([one["answer"] is not None for one in rows])),
        "avg_time": seconds,
        **verification(solved),
        "agents": [agent.name for agent in agents],
        "attempts": settings.attempts,
        "candidates": len(found) / len(rows),
        "unscored_steps": sum(one.unscored for one in found),
        "truncation_rate": float(np.mean([one.truncated for one in found])),
        "tokens": {
            name: float(np.mean([one["tokens"][name] for one in rows]))
            for name in rows[0]["tokens"]
        },
        "selectors": {
            name: {
                **intervals.wilson(int(right_P.sum()), len(right_P))._asdict(),
                "tokens": float(np.mean([_cost(one, weights, name, settings) for one in solved])),
                "minus_majority": intervals.paired(right["majority"], right_P)._asdict(),
            }
            for name, right_P in right.items()
        },
        "pass_at_n": intervals.wilson(int(passed_P.sum()), len(passed_P))._asdict(),
        "oracle_gap": intervals.paired(best_P, passed_P)._asdict(),
        # Candidates of a search are not independent: a part of them is not a smaller search.
        "curves": {} if settings.search else curves(solved, weights, settings, seed),
        "calibration": _calibration([one.kept for one in solved], weights, list(right)),
        "score_auc": _score_auc([one.kept for one in solved]),
        "search": _searched(rows, settings) if settings.search else None,
        "revision": revision_results.summary(solved, resampled) if settings.rounds else None,
        "task_figures": figures or {},
        "plain": None if plain is None else _compared(plain, right, settings),
    }
    return {**out, "results": rows}


def verification(solved: Sequence[Solved]) -> dict[str, Any]:
    """verification_*: the verdicts correct and incorrect as a classifier of right candidates.

    rate: share of all candidates that have such a verdict. The other figures skip candidates that
    the answer check is undecided about; 0/0 is None.
    """
    found = [one for some in solved for one in some.all]
    decided = [one for one in found if one.verdict in ("correct", "incorrect")]
    known = [(one.verdict == "correct", one.right) for one in decided if one.right is not None]
    both = sum(said and bool(right) for said, right in known)
    precision = _share(both, sum(said for said, _ in known))
    recall = _share(both, sum(bool(right) for _, right in known))
    f1 = None
    if precision is not None and recall is not None:
        f1 = _share(2 * precision * recall, precision + recall)
    return {
        "verification_rate": _share(len(decided), len(found)),
        "verification_precision": precision,
        "verification_recall": recall,
        "verification_f1": f1,
        "verified": sum(one.verdict is not None for one in found),
        "verified_unsure": sum(one.verdict == candidates.UNSURE for one in found),
    }


def curves(
    solved: Sequence[Solved], weights: Sequence[float], settings: SolveSettings, seed: int
) -> dict[str, dict[str, Any]]:
    """k -> selector -> estimate from subsets of k kept candidates, for k = 1, 2, 4, … and all.

    pass and best are exact; majority and weighted are means over `subsets` subsets.
    """
    count = min(len(one.kept) for one in solved)
    powers = [2**i for i in range(count.bit_length()) if 2**i <= count]
    voted = ("majority", "weighted") if settings.reward_model else ("majority",)
    out: dict[str, dict[str, Any]] = {}
    votes = [candidates.votes(one.kept, weights) for one in solved]
    right_PN = [np.array([one.right is True for one in some.kept]) for some in solved]
    # Candidates without an answer are below all others.
    score_PN = [np.where(one.group_N < 0, math.nan, one.score_N) for one in votes]
    for k in sorted({*powers, count}):
        means = {
            "pass": [
                intervals.pass_at_k(len(right_N), int(right_N.sum()), k) for right_N in right_PN
            ]
        }
        if settings.reward_model:
            pairs = zip(score_PN, right_PN, strict=True)
            means["best"] = [selection.best_of_k(*pair, k) for pair in pairs]
        subsets = 0
        for name in voted:
            drawn = [
                selection.expected(
                    *pair, k, name, rng=functools.partial(np.random.default_rng, [seed, i])
                )
                for i, pair in enumerate(zip(votes, right_PN, strict=True))
            ]
            subsets = drawn[0][1]
            means[name] = [mean for mean, _ in drawn]
        estimates = {name: intervals.mean_interval(np.array(one)) for name, one in means.items()}
        out[str(k)] = {name: one._asdict() for name, one in estimates.items()}
        out[str(k)]["subsets"] = subsets
    return out


def _calibration(
    found: Sequence[Sequence[Candidate]], weights: Sequence[float], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """{selector that votes: calibration of its confidence}."""
    return {name: calibration.of_votes(found, weights, name) for name in names if name in VOTING}


def _score_auc(found: Sequence[Sequence[Candidate]]) -> float | None:
    """P(a right candidate scores above a wrong one of its problem); None without such a pair."""
    known = [
        [one for one in some if one.right is not None and not math.isnan(one.score)]
        for some in found
    ]
    return process_bench.auc_within(
        [([one.score for one in some], [bool(one.right) for one in some]) for some in known]
    )


def _searched(rows: Sequence[Mapping[str, Any]], settings: SolveSettings) -> dict[str, Any]:
    """How the search was done, and means over the problems of what it drew."""
    counts = {
        name: float(np.mean([one["search"][name] for one in rows])) for name in rows[0]["search"]
    }
    how = {"method": settings.search, "width": settings.width, "max_steps": settings.max_steps}
    return {**how, **counts}


def _compared(
    plain: Sequence[Sequence[Candidate]],
    right: Mapping[str, np.ndarray],
    settings: SolveSettings,
) -> dict[str, Any]:
    """The same selectors on plain samples at equal tokens; difference: solve minus plain."""
    names = [name for name in right if name != "weighted_verdict"]
    other = _selected(plain, [1.0], names)
    passed = [any(one.right for one in some) for some in plain]
    # Plain samples have no verdicts: the weighted vote is compared with weighted_verdict.
    of = {name: "weighted" if name == "weighted_verdict" else name for name in right}
    return {
        "samples": float(np.mean([len(some) for some in plain])),
        "tokens": float(np.mean([sum(len(one.tokens) for one in some) for some in plain])),
        "selectors": {
            name: intervals.wilson(int(one.sum()), len(one))._asdict()
            for name, one in other.items()
        },
        "pass_at_n": intervals.wilson(sum(passed), len(passed))._asdict(),
        "calibration": _calibration(plain, [1.0], names),
        "difference": {
            name: intervals.paired(other[of[name]], one)._asdict() for name, one in right.items()
        },
        "compared_with": of[settings.selector],
    }


def _selected(
    found: Sequence[Sequence[Candidate]], weights: Sequence[float], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """{selector: bool [problems], whether the candidate that it takes is right}."""
    out = {}
    for name in names:
        chosen = [candidates.choose(some, weights, name) for some in found]
        out[name] = np.array([one is not None and one.right is True for one in chosen], bool)
    return out


def _cost(solved: Solved, weights: Sequence[float], name: str, settings: SolveSettings) -> int:
    """Tokens that a selector needs.

    `first` needs no candidate after the one that it takes. Verdicts count for weighted_verdict, and
    with rounds, where they decide what is revised. Of a search all tokens count.
    """
    reads = name == "weighted_verdict" or settings.rounds > 0
    if solved.search is not None:
        verdicts = sum(one.verdict_tokens for one in solved.all) if reads else 0
        return solved.search.tokens + verdicts
    last = candidates.choose(solved.kept, weights, "first") if name == "first" else None
    needed = [one for one in solved.all if last is None or one.slot <= last.slot]
    return sum(one.cost if reads else len(one.tokens) for one in needed)


def _interval(right_P: np.ndarray) -> list[float]:
    found = intervals.wilson(int(right_P.sum()), len(right_P))
    return [found.low, found.high]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
