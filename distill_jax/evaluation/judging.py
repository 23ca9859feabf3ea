"""Candidates judged by the gold answers, after everything was drawn and selected."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solved import Solved
from distill_jax.tasks import Judged, Task


def judged(
    task: Task, problems: Sequence[Problem], found: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """The candidates of each problem with `right` and `details`, as `Candidate` has them."""
    flat = [
        (problem, one)
        for problem, some in zip(problems, found, strict=True)
        for one in some
        if problem.answer
    ]
    ended_B = np.array([not one.truncated for _, one in flat], bool)
    left: Iterator[dict[str, Any]] = iter(())
    if flat:
        made = task.judge([problem for problem, _ in flat], [one.text for _, one in flat], ended_B)
        rows = zip(made.right_B.tolist(), made.undecided_B.tolist(), made.details, strict=True)
        left = iter(
            [
                {"right": None if undecided else right, "details": details}
                for right, undecided, details in rows
            ]
        )
    return [
        [dataclasses.replace(one, **next(left)) if problem.answer else one for one in some]
        for problem, some in zip(problems, found, strict=True)
    ]


def judged_solved(
    task: Task, problems: Sequence[Problem], solved: Sequence[Solved]
) -> list[Solved]:
    """The problems with their kept and replaced candidates `judged`."""
    kept = judged(task, problems, [one.kept for one in solved])
    replaced = judged(task, problems, [one.replaced for one in solved])
    return [
        one._replace(kept=some, replaced=others)
        for one, some, others in zip(solved, kept, replaced, strict=True)
    ]


def task_figures(
    task: Task, problems: Sequence[Problem], solved: Sequence[Solved]
) -> dict[str, dict[str, Any]]:
    """What `Task.figures` gives of the first candidates and of the kept ones, judged."""
    found = {"first": [one.first for one in solved], "kept": [one.kept for one in solved]}
    return {name: _figures(task, problems, some) for name, some in found.items()}


def _figures(
    task: Task, problems: Sequence[Problem], found: Sequence[Sequence[Candidate]]
) -> dict[str, Any]:
    pairs = zip(problems, found, strict=True)
    flat = [(problem, one) for problem, some in pairs for one in some if problem.answer]
    made = Judged(
        np.array([one.right is True for _, one in flat], bool),
        np.array([one.right is None for _, one in flat], bool),
        [dict(one.details) for _, one in flat],
        [one.answer for _, one in flat],
    )
    return task.figures([problem for problem, _ in flat], [one.text for _, one in flat], made)
