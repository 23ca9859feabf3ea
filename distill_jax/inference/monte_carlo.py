"""Counts of the steps of solutions: how often completions of each prefix end right.

Math-Shepherd's construction (arXiv 2312.08935) on token ids: a completer continues the prompt and
the solution's own tokens. Wave 0 completes the bare prompts, wave s + 1 the prefixes that end with
step s, of all solutions that are still labelled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import rng
from distill_jax.inference import generate
from distill_jax.inference.generate import Tick
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning.step_labels import Counts
from distill_jax.rollout.sampler import Rollout, Sampler, SamplingSettings

TRUNCATED_AS = ("undecided", "wrong")
_NONE = Counts(0, 0, 0)


class Solution(NamedTuple):
    """A solution to label.

    Attributes:
        problem: number of its problem; solutions of one problem share the root.
        prompt: token ids; None: the problem has no prompt that fits.
        tokens: of the solution, EOS included.
        stops: place in `tokens` of each step's last token, its separator included.
        verdict: of the solution itself, one completion.
    """

    problem: int
    prompt: list[int] | None
    tokens: list[int]
    stops: list[int]
    verdict: Counts


class Prefix(NamedTuple):
    """What is completed: the row of its solution, the prompt, and the solution's tokens so far."""

    row: int
    prompt: list[int]
    written: list[int]


class SolutionCounts(NamedTuple):
    """Counts of a solution.

    Attributes:
        root: of the bare prompt; no completions where the prompt is too long.
        steps: of the prefix that ends with each step; None where nothing was drawn.
        sampled: False if the steps have the root's counts, see `skip_sure`.
        too_long: steps whose prefix had no room.
    """

    root: Counts
    steps: list[Counts | None]
    sampled: bool = True
    too_long: int = 0


# (wave, its prefixes) -> counts of each.
Draw = Callable[[int, Sequence[Prefix]], Sequence[Counts]]


def label(
    traces: Sequence[Solution], draw: Draw, *, eos_id: int, longest: int, skip_sure: bool
) -> list[SolutionCounts]:
    """The counts of each solution's steps.

    Labelling of a solution stops after the first prefix whose completions are all wrong, and at a
    prefix that is too long. A prefix that holds EOS is not completed: its counts are the solution's
    own verdict.

    Args:
        traces: each with at least one step.
        draw: completes and judges the prefixes of a wave.
        eos_id: ends a solution.
        longest: most tokens of a prompt with what was written; longer ones are never cut.
        skip_sure: a right solution of a problem that every completion of the bare prompt solves
            takes the root's counts for all its steps, and nothing is drawn for it.
    """
    roots = _roots(traces, draw, longest)
    out: list[SolutionCounts] = []
    for trace in traces:
        root, count = roots.get(trace.problem), len(trace.stops)
        if root is None:
            out.append(SolutionCounts(_NONE, [None] * count, too_long=count))
        elif skip_sure and trace.verdict.right and _all_right(root):
            out.append(SolutionCounts(root, [root] * count, sampled=False))
        else:
            out.append(SolutionCounts(root, [None] * count))
    alive = [row for row, one in enumerate(out) if one.sampled and not one.too_long]
    step = 0
    while alive:
        due = []
        for row in alive:
            trace = traces[row]
            written = trace.tokens[: trace.stops[step] + 1]
            if eos_id in written:
                out[row].steps[step] = trace.verdict
            elif trace.prompt is None or len(trace.prompt) + len(written) > longest:
                out[row] = out[row]._replace(too_long=len(trace.stops) - step)
            else:
                due.append(Prefix(row, trace.prompt, written))
        for prefix, counts in zip(due, draw(step + 1, due) if due else [], strict=True):
            out[prefix.row].steps[step] = counts
        alive = [
            row
            for row in alive
            if step + 1 < len(traces[row].stops) and _goes_on(out[row].steps[step])
        ]
        step += 1
    return out


def _roots(traces: Sequence[Solution], draw: Draw, longest: int) -> dict[int, Counts]:
    """Counts of each problem's prompt, drawn once; a problem whose prompt is too long has none."""
    first: dict[int, Prefix] = {}
    for row, trace in enumerate(traces):
        if trace.prompt is not None and len(trace.prompt) <= longest:
            first.setdefault(trace.problem, Prefix(row, trace.prompt, []))
    counts = draw(0, list(first.values())) if first else []
    return dict(zip(first, counts, strict=True))


def _all_right(counts: Counts) -> bool:
    return counts.right > 0 and not counts.wrong and not counts.undecided


def _goes_on(counts: Counts | None) -> bool:
    return counts is not None and bool(counts.right or counts.undecided)


@dataclass
class Completer:
    """Draws n completions of each prefix with a sampler, and judges them: a `Draw`.

    A completion is a function of (key, wave, row, its number): neither the batch nor earlier draws
    change it.

    Attributes:
        sampler, weights, store, tick: as `generate.answers` takes them.
        sampling: temperature, top-p, longest completion.
        key: typed key of the labelling.
        n: completions of each prefix.
        batch: completions drawn at a time.
        judge: (prefixes, one a completion; rollout) -> columns "right" and "undecided".
        truncated_as: the verdict on a completion without EOS, whatever it states.
        tokens: drawn so far, those of the store included.
    """

    sampler: Sampler
    weights: Callable[[], Any]
    sampling: SamplingSettings
    key: jax.Array
    n: int
    batch: int
    judge: Callable[[Sequence[Prefix], Rollout], dict[str, list[Any]]]
    truncated_as: str
    store: AnswerStore | None = None
    tick: Tick | None = None
    tokens: int = 0

    def __call__(self, wave: int, prefixes: Sequence[Prefix]) -> list[Counts]:
        """Counts of each prefix of a wave."""

        def columns(places: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
            return self.judge([prefixes[place] for place in places for _ in range(self.n)], out)

        found = generate.answers(
            self.sampler,
            self.weights,
            [[*prefix.prompt, *prefix.written] for prefix in prefixes],
            self.sampling,
            key=rng.stream_key(self.key, "completions", wave),
            batch=self.batch,
            samples=self.n,
            ids=[prefix.row for prefix in prefixes],
            store=self.store,
            decoding=f"wave {wave}",
            columns=columns,
            tick=self.tick,
            powers=True,
        )
        self.tokens += int(found.length_B.sum())
        right_PN, undecided_PN, ended_PN = (
            np.array(values, bool).reshape(len(prefixes), self.n)
            for values in (found.columns["right"], found.columns["undecided"], found.ended_B)
        )
        right_P = (right_PN & ended_PN).sum(axis=1)
        undecided_P = (undecided_PN & ended_PN).sum(axis=1)
        if self.truncated_as == "undecided":
            undecided_P += (~ended_PN).sum(axis=1)
        return [
            Counts(int(right), self.n - int(right) - int(undecided), int(undecided))
            for right, undecided in zip(right_P, undecided_P, strict=True)
        ]
