"""Plain samples of one agent that take as many tokens as the method they are compared with."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from distill_jax.core import rng
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solver import Solver

# Fewest plain samples that are drawn at a time after the first `attempts`.
_PART = 8


def plain(
    solver: Solver, prompts: Sequence[Sequence[int]], budget_P: Sequence[int]
) -> list[list[Candidate]]:
    """Plain samples of the default agent for each problem, within its budget of tokens.

    Samples count in the order drawn; each problem has at least one, even over its budget. The first
    `attempts` are drawn with the solver's key: if agent 0 is the default agent, they are its
    candidates. The others are drawn in parts of one size, so that the samples of a problem do not
    depend on the other problems.
    """
    agent = solver.settings.default_agent()
    same = dataclasses.replace(solver.agents[0], name=agent.name, weight=agent.weight) == agent
    found: list[list[Candidate]] = [[] for _ in prompts]
    todo, part, attempts = list(range(len(prompts))), 0, solver.settings.attempts
    while todo:
        key = solver.key if part == 0 else rng.stream_key(solver.key, "plain", part)
        decoding = "agent 0" if part == 0 and same else f"plain {part}"
        count = attempts if part == 0 else max(attempts, _PART)
        first = attempts + (part - 1) * count if part else 0
        some = [prompts[i] for i in todo]
        drawn = solver.sample(some, agent, 0, key, decoding, ids=todo, count=count, first=first)
        for i, new in zip(todo, drawn, strict=True):
            found[i] += new
        todo = [i for i in todo if _tokens(found[i]) < budget_P[i]]
        part += 1
    return [some[: _within(some, budget)] for some, budget in zip(found, budget_P, strict=True)]


def _tokens(candidates: Sequence[Candidate]) -> int:
    return sum(len(one.tokens) for one in candidates)


def _within(candidates: Sequence[Candidate], budget: int) -> int:
    spent = np.cumsum([len(one.tokens) for one in candidates])
    return max(1, int(np.searchsorted(spent, budget, side="right")))
