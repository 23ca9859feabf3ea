"""Arms: groups of problems, by level or by level and subject, that a curriculum chooses from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.data.problem import Problem

KINDS = ("level", "level_subject")
UNLEVELLED = ("own_arm", "drop", "error")
NO_LEVEL = "no_level"


@dataclass(frozen=True)
class Arms:
    """The arms of a list of problems; A of them, by level, then by subject, unlevelled last.

    Attributes:
        names: of the arms, e.g. "level_3" or "level_3/number_theory"; fit for metric names.
        level_A: int64; 0 for the arm of problems without a level.
        arm_N: int64, the arm of each problem; −1 where it was dropped.
        members: for each arm its problems' numbers, easiest first: shorter worked solutions, then
            the order of the list.
        unlevelled: how many problems have no level.
    """

    names: tuple[str, ...]
    level_A: np.ndarray
    arm_N: np.ndarray
    members: tuple[np.ndarray, ...]
    unlevelled: int

    @property
    def size_A(self) -> np.ndarray:
        """Problems of each arm, int64 [A]; none is empty."""
        return np.array([len(found) for found in self.members], np.int64)

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the problems that belong to an arm, in the order of the list."""
        return np.flatnonzero(self.arm_N >= 0)


def build(problems: Sequence[Problem], *, kind: str = "level", unlevelled: str = "own_arm") -> Arms:
    """The arms of these N problems; a step's draw is given as numbers into this list.

    Args:
        problems: N problems.
        kind: "level", or "level_subject" for one arm a pair that occurs.
        unlevelled: an entry of UNLEVELLED, for problems without a level.

    Raises:
        DataError: no problem is left, or one has no level and that is refused.
    """
    without = [place for place, p in enumerate(problems) if p.level is None]
    if without and unlevelled == "error":
        raise DataError(
            f"{len(without)} of {len(problems)} problems have no level, first "
            f"{problems[without[0]].id}",
            fix="give them one in the column level, or set unlevelled to own_arm or drop",
        )
    found: dict[tuple[bool, int, str], list[int]] = {}
    for place, problem in enumerate(problems):
        if problem.level is None and unlevelled == "drop":
            continue
        found.setdefault(_key(problem, kind), []).append(place)
    if not found:
        raise DataError(
            f"none of {len(problems)} problems has a level",
            fix="use data with a column level, or set unlevelled to own_arm",
        )
    keys = sorted(found)
    arm_N = np.full(len(problems), -1, np.int64)
    for arm, key in enumerate(keys):
        arm_N[found[key]] = arm
    return Arms(
        names=tuple(_name(key) for key in keys),
        level_A=np.array([level for _, level, _ in keys], np.int64),
        arm_N=arm_N,
        members=tuple(
            np.array(sorted(found[key], key=lambda n: (len(problems[n].solution), n)), np.int64)
            for key in keys
        ),
        unlevelled=len(without),
    )


def _key(problem: Problem, kind: str) -> tuple[bool, int, str]:
    """(no level, level, subject): sorts as the arms are listed."""
    if problem.level is None:
        return True, 0, ""
    subject = ""
    if kind == "level_subject":
        subject = re.sub(r"[^a-z0-9]+", "_", (problem.subject or "").lower()).strip("_")
        subject = subject or "no_subject"
    return False, problem.level, subject


def _name(key: tuple[bool, int, str]) -> str:
    unlevelled, level, subject = key
    if unlevelled:
        return NO_LEVEL
    return f"level_{level}/{subject}" if subject else f"level_{level}"
