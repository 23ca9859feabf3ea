"""Search over the steps of solutions with a process reward model: beam search and DVTS.

A tree starts at the bare prompt. An iteration draws `width` continuations, one step long, of each
beam that the tree keeps. Complete ones leave the tree as candidates; of the others the best `kept`
are continued. A tree ends when it has kept · width candidates, or no beam. Beam search is one tree
(Snell et al., arXiv 2408.03314); DVTS is many trees that keep one beam each (Beeching et al. 2024,
search-and-learn). Both draw N = trees · kept · width steps at a time.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import rng
from distill_jax.core.errors import DataError
from distill_jax.inference import generate
from distill_jax.inference.agents import request_id
from distill_jax.inference.generate import Tick
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.sampler import Sampler, SamplingSettings


class Shape(NamedTuple):
    """The size of a search.

    Attributes:
        trees: independent trees of a problem.
        kept: beams that a tree keeps.
        width: continuations of a beam.
    """

    trees: int
    kept: int
    width: int

    @property
    def size(self) -> int:
        """Continuations that a tree draws at a time."""
        return self.kept * self.width


# Name -> function of the number of beams kept in all -> (trees, beams kept in each).
SEARCHES: dict[str, Callable[[int], tuple[int, int]]] = {
    "beam": lambda beams: (1, beams),
    "dvts": lambda beams: (beams, 1),
}


class Prefix(NamedTuple):
    """A kept beam that is continued: its problem, its place among the kept ones, its tokens."""

    problem: int
    slot: int
    written: tuple[int, ...]


class Beam(NamedTuple):
    """A continued prefix: its problem, all its tokens, the number of new ones, EOS was drawn."""

    problem: int
    written: tuple[int, ...]
    new: int
    ended: bool


@dataclass
class SearchResult:
    """The candidates of one problem, and counts of what was drawn for them.

    Attributes:
        candidates: complete beams in the order in which they were completed.
        iterations: number of iterations in which something was drawn.
        tokens: number of drawn tokens, those of dropped beams included.
        steps: number of continuations drawn.
        duplicates: continuations that equal an earlier one of the same iteration.
        dropped: beams that were drawn and not kept.
    """

    candidates: list[Beam] = field(default_factory=list)
    iterations: int = 0
    tokens: int = 0
    steps: int = 0
    duplicates: int = 0
    dropped: int = 0

    def note(self, drawn: Sequence[Beam]) -> None:
        """Counts an iteration's continuations."""
        self.iterations += 1
        self.steps += len(drawn)
        self.tokens += sum(beam.new for beam in drawn)
        self.duplicates += len(drawn) - len({(beam.written, beam.ended) for beam in drawn})


# (iteration, prefixes, number of continuations, up to the solution's end) -> those of each prefix.
Draw = Callable[[int, Sequence[Prefix], int, bool], Sequence[Sequence[Beam]]]
# Beams -> score of each.
Score = Callable[[Sequence[Beam]], Sequence[float]]


def search(
    problems: int, shape: Shape, draw: Draw, score: Score, *, limit: int, max_steps: int
) -> list[SearchResult]:
    """The candidates of each problem.

    No problem's result depends on the others if draw and score have that property.

    Args:
        problems: their number.
        shape: of the search.
        draw: continues prefixes; the first iteration has one empty prefix a problem.
        score: of beams that are not complete, higher is better; NaN is refused.
        limit: most tokens of a solution; a beam of that length is complete.
        max_steps: iterations at most.

    Raises:
        DataError: a score is NaN.
    """
    found = [SearchResult() for _ in range(problems)]
    done = np.zeros((problems, shape.trees), int)
    due = [Prefix(problem, 0, ()) for problem in range(problems)]
    for step in range(max_steps):
        if not due:
            break
        live: dict[tuple[int, int], list[Beam]] = {}
        count = shape.trees * shape.size if step == 0 else shape.width
        whole = step + 1 == max_steps
        drawn: dict[int, list[Beam]] = {}
        for prefix, beams in zip(due, draw(step, due, count, whole), strict=True):
            drawn.setdefault(prefix.problem, []).extend(beams)
            for number, beam in enumerate(beams):
                tree = number // shape.size if step == 0 else prefix.slot // shape.kept
                if whole or beam.ended or len(beam.written) >= limit:
                    found[prefix.problem].candidates.append(beam)
                    done[prefix.problem, tree] += 1
                else:
                    live.setdefault((prefix.problem, tree), []).append(beam)
        for problem, beams in drawn.items():
            found[problem].note(beams)
        for at in [at for at in live if done[at] >= shape.size]:
            found[at[0]].dropped += len(live.pop(at))
        due = _kept(live, shape, score, found)
    return found


def _kept(
    live: dict[tuple[int, int], list[Beam]],
    shape: Shape,
    score: Score,
    found: Sequence[SearchResult],
) -> list[Prefix]:
    """The prefixes that are continued, by problem and slot."""
    scores = iter(score([beam for beams in live.values() for beam in beams]) if live else ())
    due = []
    for (problem, tree), beams in live.items():
        chosen = best([next(scores) for _ in beams], shape.kept)
        found[problem].dropped += len(beams) - len(chosen)
        due += [
            Prefix(problem, tree * shape.kept + rank, beams[place].written)
            for rank, place in enumerate(chosen)
        ]
    return sorted(due)


def best(scores: Sequence[float], count: int) -> list[int]:
    """Places of the `count` highest scores, the best first; of equal ones the earlier.

    Raises:
        DataError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise DataError("the score of a beam is NaN", wanted="a number")
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


@dataclass(frozen=True)
class Continuer:
    """Draws continuations of beams with a sampler: a `Draw`.

    The first iteration draws the first steps of the samples that plain sampling draws with the same
    key. Later continuations are functions of (key, iteration, problem, slot, number), so neither
    the batch nor the other problems change them.

    Attributes:
        sampler, weights, store: as `generate.answers` takes them.
        prompts: token ids of the problems.
        sampling: temperature, top-p, longest solution.
        key: typed key of the search.
        batch: continuations drawn at a time.
        ends: (tokens of a beam, new ones) -> how many of these its next step has, None while it
            has not ended.
        counting: (name of the draw, continuations) -> a block that gives its tick.
    """

    sampler: Sampler
    weights: Callable[[], Any]
    prompts: Sequence[Sequence[int]]
    sampling: SamplingSettings
    key: jax.Array
    batch: int
    ends: Callable[[Sequence[int], Sequence[int]], int | None]
    store: AnswerStore | None
    counting: Callable[[str, int], contextlib.AbstractContextManager[Tick | None]]

    def __call__(
        self, step: int, prefixes: Sequence[Prefix], count: int, whole: bool
    ) -> list[list[Beam]]:
        """`count` continuations of each prefix; `whole`: up to the solution's end."""
        key, ids = self.key, [one.problem for one in prefixes]
        if step:
            key = rng.stream_key(key, "search", step)
            ids = [request_id(one.problem, 0, one.slot) for one in prefixes]
        decoding = f"search step {step}"
        stops = [functools.partial(self.ends, one.written) for one in prefixes]
        with self.counting(decoding, len(prefixes) * count) as tick:
            drawn = generate.answers(
                self.sampler,
                self.weights,
                [[*self.prompts[one.problem], *one.written] for one in prefixes],
                self.sampling,
                key=key,
                batch=self.batch,
                samples=count,
                ids=ids,
                store=self.store,
                decoding=decoding,
                tick=tick,
                powers=True,
                stops=None if whole else stops,
                rooms=[self.sampling.max_new_tokens - len(one.written) for one in prefixes],
            )
        pieces = iter(zip(drawn.tokens, drawn.ended_B.tolist(), strict=True))
        out = []
        for one in prefixes:
            some = [next(pieces) for _ in range(count)]
            out.append(
                [Beam(one.problem, (*one.written, *new), len(new), ended) for new, ended in some]
            )
        return out
