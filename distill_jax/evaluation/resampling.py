"""The control of revision: new samples of the same problems in the revisions' place, equal tokens.

Whatever a round of revision gains, drawing again may gain too. The control begins with the same
first candidates, draws for the same slots from the problem's own prompt, and keeps by the same
rule. It stops with the sample that reaches the tokens of the problem's revisions: it has never
fewer.
"""

import dataclasses
from collections.abc import Sequence

from distill_jax.core import rng
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solved import Solved
from distill_jax.evaluation.solver import Solver
from distill_jax.inference import agents as solvers

_Place = tuple[int, tuple[int, int]]  # problem and slot


def resampled(
    solver: Solver,
    questions: Sequence[str],
    scorer_prompts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[Sequence[int]]],
    solved: Sequence[Solved],
) -> list[Solved]:
    """The problems with their first candidates, after new samples instead of the revisions.

    Slots that were revised have samples in turn. A new sample's `round` counts the turns.

    Args:
        solver, questions, scorer_prompts, prompts: as of `Solver.solve`.
        solved: after its rounds of revision.
    """
    out = [Solved(one.first, []) for one in solved]
    budget_P = [extra_tokens(one) for one in solved]
    slots_P = [sorted({one.slot for one in some.revisions if one.revised}) for some in solved]
    turn = 0
    while todo := [
        (problem, slot)
        for problem, slots in enumerate(slots_P)
        for slot in slots
        if extra_tokens(out[problem]) < budget_P[problem]
    ]:
        turn += 1
        new = _drawn(solver, prompts, todo, turn, len(solved))
        new = solver.examined(questions, scorer_prompts, out, new, turn, "resample")
        out = [
            one.after(_within(some, budget - extra_tokens(one)))
            for one, some, budget in zip(out, new, budget_P, strict=True)
        ]
    return out


def extra_tokens(solved: Solved) -> int:
    """Tokens generated for a problem after its first candidates, verdicts on them included."""
    return sum(one.cost for one in solved.all if one.round)


def _drawn(
    solver: Solver,
    prompts: Sequence[Sequence[Sequence[int]]],
    todo: Sequence[_Place],
    turn: int,
    problems: int,
) -> list[list[Candidate]]:
    """One new sample for each place, by problem; none of them depends on the other places."""
    new: list[list[Candidate]] = [[] for _ in range(problems)]
    for number, agent in enumerate(solver.agents):
        places = [(problem, slot) for problem, slot in todo if slot[0] == number]
        if not places:
            continue
        decoding = f"resample {turn} agent {number}"
        drawn = solver.sample(
            [prompts[number][problem] for problem, _ in places],
            agent,
            number,
            rng.stream_key(solver.key, decoding),
            decoding,
            ids=[solvers.request_id(problem, *slot) for problem, slot in places],
            count=1,
            powers=True,  # each turn has fewer places
        )
        for (problem, slot), (one,) in zip(places, drawn, strict=True):
            new[problem].append(dataclasses.replace(one, attempt=slot[1], round=turn))
    return new


def _within(new: Sequence[Candidate], budget: int) -> list[Candidate]:
    """The first of the new candidates, up to the one that reaches the budget."""
    kept: list[Candidate] = []
    for one in new:
        if budget <= 0:
            break
        kept.append(one)
        budget -= one.cost
    return kept
