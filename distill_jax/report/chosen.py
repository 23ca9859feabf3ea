"""Which problems a report shows: first those that changed, spread over levels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
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


Problems = Sequence[Mapping[str, Any]]


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


def choose(earlier: Problems, later: Problems, count: int) -> list[Choice]:
    """At most `count` problems by RULE, sorted by kind.

    Raises:
        DataError: the two results are of different problems.
    """
    found = by_kind(earlier, later)
    levels = [problem.get("level") for problem in later]
    queues = {
        kind: [Choice(place, kind) for place in _spread(places, levels)]
        for kind, places in found.items()
    }
    turns = zip_longest(*(queues[kind] for kind in (BETTER, WORSE, WRONG)))
    changed = [choice for turn in turns for choice in turn if choice is not None]
    order = list(found)
    picked = [*changed, *queues[RIGHT]][:count]
    return sorted(picked, key=lambda choice: order.index(choice.kind))


def by_kind(earlier: Problems, later: Problems) -> dict[str, list[int]]:
    """Places in the "problems" of two results by kind, for all four kinds.

    Raises:
        DataError: the two results are of different problems.
    """
    check_same(earlier, later)
    names = {(0, 1): BETTER, (1, 0): WORSE, (0, 0): WRONG, (1, 1): RIGHT}
    out: dict[str, list[int]] = {kind: [] for kind in names.values()}
    for index, (one, other) in enumerate(zip(earlier, later, strict=True)):
        out[names[bool(one["greedy_right"]), bool(other["greedy_right"])]].append(index)
    return out


def check_same(earlier: Problems, later: Problems) -> None:
    """Raises DataError where two results are not of the same problems in the same order."""
    if [p["id"] for p in earlier] != [p["id"] for p in later]:
        raise DataError(
            "two students were evaluated on different problems",
            wanted="the same, in the same order",
            fix="delete the work directory's evaluate/ and run that stage again",
        )


def _spread(found: Sequence[int], levels: Sequence[int | None]) -> list[int]:
    """The same problems, one of each level in turn."""
    turn, keyed = Counter[int](), []
    for index in found:
        level = -1 if (known := levels[index]) is None else known
        turn[level] += 1
        keyed.append((turn[level], level, index))
    return [index for *_, index in sorted(keyed)]
