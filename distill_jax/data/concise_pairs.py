"""Which pairs of right solutions teach to be concise: a short one over a longer one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NATURAL, STRIPPED = "natural", "stripped"


class Sample(NamedTuple):
    """A right solution of a problem.

    Attributes:
        text, length: the completion and its tokens.
        key: of what it says: see `Task.key`.
        assertions: checks that it holds.
        hardcoded: whether its answer is written in it without the work.
        stripped: whether it was made of another one by leaving out comments.
        doubted: whether a reward model scores it too low to be chosen.
    """

    text: str
    length: int
    key: str
    assertions: int = 0
    hardcoded: bool = False
    stripped: bool = False
    doubted: bool = False


class Chosen(NamedTuple):
    """A pair: places of two samples, and whether both were written as they are."""

    chosen: int
    rejected: int
    kind: str


def of_problem(samples: Sequence[Sample], *, ratio: float, per_problem: int) -> list[Chosen]:
    """The pairs of one problem's right samples, natural ones first.

    The rejected is one that was written as it is, the longest first, each once. The chosen is the
    shortest that has at least as many assertions, is neither hard-coded nor doubted, and of whose
    tokens the rejected has at least `ratio` times as many. In a natural pair it was written as it
    is and says something else than the rejected; where there is none, a stripped one may be.
    """
    order = sorted(range(len(samples)), key=lambda i: (-samples[i].length, i))
    written = [i for i in order if not samples[i].stripped]
    shortest = order[::-1]
    out: list[Chosen] = []
    for kind in (NATURAL, STRIPPED):
        for rejected in written:
            if len(out) == per_problem or any(one.rejected == rejected for one in out):
                continue
            found = (i for i in shortest if _over(samples[i], samples[rejected], kind, ratio))
            chosen = next(found, None)
            if chosen is not None:
                out.append(Chosen(chosen, rejected, kind))
    return out


def _over(chosen: Sample, rejected: Sample, kind: str, ratio: float) -> bool:
    natural = not chosen.stripped and chosen.key != rejected.key
    return (
        (natural if kind == NATURAL else chosen.stripped)
        and not chosen.hardcoded
        and not chosen.doubted
        and chosen.assertions >= rejected.assertions
        and rejected.length >= ratio * chosen.length
    )


def within(
    kinds: Sequence[str], levels: Sequence[int | None], most: int, seed: Sequence[int]
) -> list[int]:
    """Places of at most `most` pairs, ascending: natural ones first, levels in turn.

    most: 0 keeps all. seed: of the order within a level.
    """
    if not most or len(kinds) <= most:
        return list(range(len(kinds)))
    drawn = np.random.default_rng(seed).permutation(len(kinds))
    nth: dict[tuple[str, int | None], int] = {}
    turn: dict[int, int] = {}
    for place in drawn.tolist():
        group = kinds[place], levels[place]
        turn[place] = nth[group] = nth.get(group, -1) + 1
    order = sorted(drawn.tolist(), key=lambda i: (kinds[i] != NATURAL, turn[i], levels[i] or 0))
    return sorted(order[:most])
