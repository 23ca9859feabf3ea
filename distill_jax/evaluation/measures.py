"""Measures of a model's completions besides accuracy: reasoning, reward hacking, pass@k, maj@k."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax import answers
from distill_jax.data.problem import Problem
from distill_jax.evaluation import hacking, intervals
from distill_jax.reasoning import quality
from distill_jax.reasoning.quality import Reasoning


def measures(
    problems: Sequence[Problem],
    texts: Sequence[str],
    tokens: Sequence[list[int]],
    ended_B: np.ndarray,
    right_PG: np.ndarray,
    stated: Sequence[str | None],
) -> dict[str, Any]:
    """Reasoning quality and signs of reward hacking; with several samples pass@k and maj@k too.

    Args:
        problems: P.
        texts: B = P·G completions, prompt-major.
        tokens, ended_B: their token ids, EOS included, and whether each ended by itself.
        right_PG: verdicts, bool.
        stated: B final answers as written, None for none.

    Returns:
        JSON-able; of "pass@k" and "maj@k" k -> an estimate, for k = 1, 2, 4, … and G.
    """
    samples = right_PG.shape[1]
    repeated = [problem for problem in problems for _ in range(samples)]
    found = [quality.reasoning(p.solution, text) for p, text in zip(repeated, texts, strict=True)]
    rewards = right_PG.reshape(-1).astype(float)
    out: dict[str, Any] = {
        "reasoning": reasoning_summary(found, [problem.id for problem in repeated]),
        "hacking": hacking.indicators(texts, tokens, ended_B.tolist(), rewards, stated),
    }
    if samples > 1:
        stated_PG = [stated[i : i + samples] for i in range(0, len(stated), samples)]
        powers = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
        out |= {"pass@k": {}, "maj@k": {}}
        for k in sorted({*powers, samples}):
            chance_P = [intervals.pass_at_k(samples, int(c), k) for c in right_PG.sum(axis=1)]
            out["pass@k"][str(k)] = intervals.mean_interval(np.array(chance_P))._asdict()
            out["maj@k"][str(k)] = maj_at_k(stated_PG, right_PG, k)._asdict()
    return out


def maj_at_k(
    found_PG: Sequence[Sequence[str | None]], right_PG: np.ndarray, k: int
) -> intervals.Estimate:
    """maj@k: how often the majority of the first k samples is right, with its 95% interval.

    The first k samples of each problem are one draw, not the expectation over all subsets of k, so
    the interval (Wilson, over problems) is wider. found_PG holds extracted answers in the order
    sampled; None is none, and a problem without any answer is wrong.
    """
    right = 0
    for found, verdicts in zip(found_PG, right_PG, strict=True):
        winner = majority(found[:k])
        right += winner is not None and bool(verdicts[winner])
    return intervals.wilson(right, len(found_PG))


def majority(found: Sequence[str | None]) -> int | None:
    """The first sample whose answer most samples agree with, or None where none has an answer.

    Equivalent answers ("0.5", "1/2") vote together: each joins the first group whose first member
    it is known to equal. Of groups of one size the first seen wins. None does not vote.
    """
    groups: list[list[int]] = []
    group_of: dict[str, list[int]] = {}  # the same text needs no check
    for index, answer in enumerate(found):
        if answer is None:
            continue
        if answer not in group_of:
            firsts = ((group, str(found[group[0]])) for group in groups)
            equal = (group for group, first in firsts if answers.equivalent(first, answer).right)
            group_of[answer] = next(equal, [])
            if not group_of[answer]:
                groups.append(group_of[answer])
        group_of[answer].append(index)
    return max(groups, key=len)[0] if groups else None  # max takes the first of equals


def reasoning_summary(rows: Sequence[Reasoning], problems: Sequence[str]) -> dict[str, Any]:
    """Each measure of reasoning over N completions, each with its problem.

    Completions of one problem are averaged first, since they are not independent.

    Returns:
        Measure -> {"mean", "low", "high" (95% interval over problems), "count" (completions that
        the measure applies to), "problems" (those that the interval counts)}; mean, low and high
        are None where it applies to none.
    """
    out = {}
    for name in Reasoning._fields:
        of_problem: dict[str, list[float]] = {}
        for problem, row in zip(problems, rows, strict=True):
            value = getattr(row, name)
            if value is not None:
                of_problem.setdefault(problem, []).append(value)
        count = sum(map(len, of_problem.values()))
        estimate: dict[str, Any] = dict.fromkeys(intervals.Estimate._fields)
        if of_problem:
            means = np.array([np.mean(values) for values in of_problem.values()])
            estimate = intervals.mean_interval(means)._asdict()
        out[name] = {**estimate, "count": count, "problems": len(of_problem)}
    return out
