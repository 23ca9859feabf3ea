"""Which problems a report shows: first those that changed, spread over levels."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.report.view import BASE, RunView

BETTER, WORSE, WRONG, RIGHT = "became right", "became wrong", "wrong both times", "right both times"
RULE = (
    "Greedy answers decide. In turn, one problem that became right, one that became wrong and one "
    "that was wrong both times, until there are enough or none is left; then some that were right "
    "both times. Within each kind the levels take turns from the lowest, and within a level the "
    "order is that of the evaluation."
)


class Choice(NamedTuple):
    """A problem shown: its place in the evaluation's list, and its kind."""

    place: int
    kind: str


def compared(results: Mapping[str, Any], view: RunView) -> tuple[str, str] | None:
    """The two students compared, earlier and later; None where no student was evaluated.

    The later one is the last that was evaluated, the earlier one its nearest evaluated ancestor;
    the same one where there is none.
    """
    students = [BASE, *(stage.name for stage in view.students)]
    later = next((name for name in reversed(students) if name in results), None)
    if later is None:
        return None
    before = [BASE, *(stage.name for stage in view.chain(later)[:-1])]
    return next((name for name in reversed(before) if name in results), later), later


def choose(
    earlier: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]], count: int
) -> list[Choice]:
    """At most `count` problems by RULE, sorted by kind.

    Args:
        earlier, later: "problems" of two results of `runner.evaluate`.
        count: most problems.

    Raises:
        DataError: the two are of different problems.
    """
    found = by_kind(earlier, later)
    levels = [problem.get("level") for problem in later]
    queues = {kind: deque(_spread(places, levels)) for kind, places in found.items()}
    picked: list[Choice] = []
    while len(picked) < count and any(queues[kind] for kind in (BETTER, WORSE, WRONG)):
        for kind in (BETTER, WORSE, WRONG):
            if queues[kind] and len(picked) < count:
                picked.append(Choice(queues[kind].popleft(), kind))
    picked += [Choice(index, RIGHT) for index in list(queues[RIGHT])[: count - len(picked)]]
    order = list(found)
    return sorted(picked, key=lambda choice: order.index(choice.kind))


def by_kind(
    earlier: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]]
) -> dict[str, list[int]]:
    """Places in the evaluation's list by kind, for all four kinds.

    Raises:
        DataError: the two are of different problems.
    """
    check_same(earlier, later)
    out: dict[str, list[int]] = {BETTER: [], WORSE: [], WRONG: [], RIGHT: []}
    names = {(0, 1): BETTER, (1, 0): WORSE, (0, 0): WRONG, (1, 1): RIGHT}
    for index, (one, other) in enumerate(zip(earlier, later, strict=True)):
        out[names[bool(one["greedy_right"]), bool(other["greedy_right"])]].append(index)
    return out


def check_same(earlier: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]]) -> None:
    """Raises DataError where two results are not of the same problems in the same order."""
    if [p["id"] for p in earlier] != [p["id"] for p in later]:
        raise DataError(
            "two students were evaluated on different problems",
            wanted="the same, in the same order",
            fix="delete the work directory's evaluate/ and run that stage again",
        )


def _spread(found: Sequence[int], levels: Sequence[int | None]) -> list[int]:
    """The same problems, one of each level in turn."""
    turn: dict[int | None, int] = {}
    keyed = []
    for index in found:
        level = levels[index]
        turn[level] = turn.get(level, 0) + 1
        keyed.append((turn[level], -1 if level is None else level, index))
    return [index for *_, index in sorted(keyed)]
