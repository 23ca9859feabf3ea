"""Completions of many prompts, batch by batch; batches that a store holds are not drawn again."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import digest, settings, sharding
from distill_jax.core.batching import filled
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.inference.store import AnswerStore, Batch
from distill_jax.rollout import completions, refill, rounds
from distill_jax.rollout.rounds import Replies
from distill_jax.rollout.sampler import Part, Rollout, Sampler, SamplingSettings, Stop
from distill_jax.run.run import Run
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.training.progress import Progress

Tick = Callable[[int], None]
# Column of a store with the outputs in completions of several rounds.
OUTPUTS = "outputs"


class Answers(NamedTuple):
    """Completions in the order of their prompts, `samples` a prompt, prompt-major.

    tokens are without padding, EOS and outputs included; length_B int32, the number that the model
    drew; ended_B bool, whether EOS was drawn; columns: further values of each completion by name.
    """

    tokens: list[list[int]]
    length_B: np.ndarray
    ended_B: np.ndarray
    columns: dict[str, list[Any]]

    @property
    def outputs(self) -> list[list[Any]]:
        """The outputs in each completion, as `completions.Output`."""
        return self.columns.get(OUTPUTS) or [[] for _ in self.tokens]

    @property
    def own(self) -> list[list[int]]:
        """Token ids that the model drew: what is read as its text and judged."""
        pairs = zip(self.tokens, self.outputs, strict=True)
        return [completions.own(tokens, between) for tokens, between in pairs]


def answers(
    sampler: Sampler,
    weights: Callable[[], Any],
    prompts: Sequence[Sequence[int]],
    sampling: SamplingSettings,
    *,
    key: jax.Array,
    batch: int,
    samples: int = 1,
    ids: Sequence[int] | None = None,
    store: AnswerStore | None = None,
    decoding: str = "",
    columns: Callable[[Sequence[int], Rollout], dict[str, list[Any]]] | None = None,
    tick: Tick | None = None,
    powers: bool = False,
    stops: Sequence[Stop] | None = None,
    rooms: Sequence[int] | None = None,
    replies: Replies | None = None,
) -> Answers:
    """Draws the completions of all prompts.

    A prompt's number seeds its randomness, so the batch size changes only speed and the last bits.
    Many batches (4 where sampling.row_counts is 1 or 2, else 16) are drawn by `Sampler.stream`:
    rows that have ended take waiting completions; so are fewer where `_refills` says so. Others
    are drawn by `Sampler.generate`, as those with several turns or of several processes are; the
    last batch is filled up with repeats, so that one compiled program serves all. What the store
    holds does not count, so a resumed program draws the rest as an uninterrupted one does.

    Args:
        sampler, weights: of the model, and its decode weights; called only if a batch is drawn.
        prompts: token ids.
        sampling: temperature, limits.
        key: typed key of the draw.
        batch: completions drawn at a time.
        samples: completions of each prompt.
        ids: number of each prompt; None counts from 0.
        store: takes each batch as it comes, and gives those that it has.
        decoding: name of the draw in the store.
        columns: (places of the batch's prompts, its rollout) -> further values of each completion.
        tick: called with the number of completions just drawn.
        powers: a batch below the full size has a power of two prompts, so that draws of ever other
            numbers of prompts share programs.
        stops, rooms: as `Sampler.generate` takes them, one a prompt.
        replies: completions have sampling.rounds turns, and the task replies; without stops, rooms.
    """
    ids = range(len(prompts)) if ids is None else ids
    count = 1 << (len(prompts) - 1).bit_length() if powers else len(prompts)
    size = max(1, min(batch // samples, count))
    # Prompts of similar length share a batch; the order is undone below.
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    places = [order[start : start + size].tolist() for start in range(0, len(order), size)]
    problems = [tuple(ids[row] for row in rows) for rows in places]
    held = [None if store is None else store.find(decoding, names) for names in problems]
    missing = [number for number, one in enumerate(held) if one is None]
    refilled = _refills(len(places), sampling, replies, alone=samples == 1)

    def part(number: int) -> Part:
        rows = places[number] if refilled else filled(places[number], size).tolist()
        ends = [None if given is None else [given[row] for row in rows] for given in (stops, rooms)]
        return Part([prompts[row] for row in rows], [ids[row] for row in rows], *ends)

    parts = [part(number) for number in missing]
    rows_at_once = size * samples if refilled else None
    how: dict[str, Any] = {"key": key, "samples": samples}
    drawn = _drawn(sampler, weights, parts, sampling, rows_at_once, replies, how)
    for number, out in zip(missing, drawn, strict=True):
        rows = places[number]
        out = Rollout(*(leaf[: len(rows) * samples] for leaf in out))
        tokens = [row[:n].tolist() for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
        more = {} if columns is None else columns(rows, out)
        if replies is not None:
            more |= {OUTPUTS: [[list(one) for one in between] for between in out.outputs]}
        done = Batch(decoding, problems[number], tokens, out.ended_B.tolist(), more)
        held[number] = done
        if store is not None:
            store.add(done)
        if tick is not None:
            tick(len(tokens))
    return _joined([one for one in held if one is not None], order, samples)


def _refills(
    batches: int, sampling: SamplingSettings, replies: Replies | None, *, alone: bool = False
) -> bool:
    """Whether a draw of so many batches, those that a store holds included, is one stream.

    alone: prompts have one sample, so that none is shared. With one or two row_counts the programs
    of evaluation, whose rows are refilled, then serve validation, too.
    """
    # Each process would have to choose the same rows from the tokens that it has fetched. This has
    # not been tested with several processes.
    if jax.process_count() > 1 or (replies is not None and sampling.rounds > 1):
        return False
    return refill.pays(batches, sampling, alone=alone)


def _drawn(
    sampler: Sampler,
    weights: Callable[[], Any],
    parts: Sequence[Part],
    sampling: SamplingSettings,
    rows: int | None,
    replies: Replies | None,
    how: dict[str, Any],
) -> Iterator[Rollout]:
    """The completions of each part: in so many rows that are refilled, or part by part."""
    if rows is not None and parts:
        yield from sampler.stream(weights(), parts, sampling, rows=rows, **how)
        return
    for one in parts:
        more = {**how, "prompt_ids": one.prompt_ids}
        if one.stops is None and one.rooms is None:
            more["replies"] = replies
            yield rounds.generate(sampler, weights(), one.prompts, sampling, **more)
        else:
            more |= {"stops": one.stops, "rooms": one.rooms}
            yield sampler.generate(weights(), one.prompts, sampling, **more)


def _joined(batches: Sequence[Batch], order: np.ndarray, samples: int) -> Answers:
    """The completions of all batches; order: place of each prompt among those given."""
    places_BG = np.argsort(order)[:, None] * samples + np.arange(samples)

    def ordered(parts: Sequence[Sequence[Any]]) -> list[Any]:
        flat = [value for part in parts for value in part]
        return [flat[place] for place in places_BG.ravel()]

    tokens = ordered([batch.tokens for batch in batches])
    names = batches[0].columns if batches else {}
    ended_B = np.array(ordered([batch.ended for batch in batches]), bool)
    columns = {name: ordered([batch.columns[name] for batch in batches]) for name in names}
    found = Answers(tokens, np.zeros(0, np.int32), ended_B, columns)
    return found._replace(length_B=np.array([len(row) for row in found.own], np.int32))


def made_from(
    run: Run, weights: dict[str, str], data: Prompts, sampling: SamplingSettings, **more: Any
) -> dict[str, Any]:
    """What answers depend on, JSON-able, for a store.

    `weights` are digests of the model's parts, `more` further parts by name. Of the data a digest
    is recorded; settings of sampling that change the last bits alone are omitted.
    """

    def parts() -> Any:
        for problem, prompt in zip(data.problems, data.prompts, strict=True):
            yield f"{problem.id}\0{problem.answer}\0{len(prompt)}\0"
            yield np.asarray(prompt, np.int32).tobytes()

    return {
        **weights,
        "prompts": digest.of_all(parts()),
        "seed": run.config.seed,
        "task": run.config.task,
        **more,
        "sampling": of_rounds(settings.affecting(sampling, rounding=False)),
    }


def of_rounds(sampling: dict[str, Any]) -> dict[str, Any]:
    """Sampling settings by name; of one round those of older versions, which had no other."""
    if sampling["rounds"] > 1:
        return sampling
    return {name: x for name, x in sampling.items() if name not in ("rounds", "output_tokens")}


def verdicts(
    run: Run, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
) -> dict[str, list[bool]]:
    """Columns "right" and "undecided": the task's verdicts, the same on all processes."""
    judged = run.data.task.judge(problems, texts, ended_B)
    return {
        "right": sharding.of_first_process(judged.right_B).tolist(),
        "undecided": sharding.of_first_process(judged.undecided_B).tolist(),
    }


def stopping(run: Run, progress: Progress, done: int, before: str, after: str) -> Tick:
    """A `tick` that counts finished answers and raises Interrupted when the run was asked to stop.

    `done` answers were finished earlier. The message is "BEFORE 3 of AFTER; …".
    """

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress.update(done)
        if run.stop.due(done):
            raise Interrupted(f"{before} {done} of {after}; {GO_ON}")

    return tick
