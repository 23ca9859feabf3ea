"""Solutions of a round: drawn and judged; wrong ones cut and written on."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.inference import generate
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Format
from distill_jax.rollout.sampler import Rollout
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.stages.evolve_rules import Solution, first_low
from distill_jax.training.progress import Progress


class Drawn(NamedTuple):
    """A solution that was drawn.

    Attributes:
        problem, sample: number of its problem, and of it among those of the problem.
        text, tokens: the completion; its token ids, EOS included.
        ended: whether EOS was drawn.
        right, undecided: verdict of the task; one that did not end is not right.
        guess: whether it is right without the work: see `Task.guesses`.
        cost: tokens that were drawn for it.
        steps, score: of the reward model; NaN where there is none.
    """

    problem: int
    sample: int
    text: str
    tokens: list[int]
    ended: bool
    right: bool
    undecided: bool
    guess: bool
    cost: int
    steps: tuple[float, ...] = ()
    score: float = float("nan")


@dataclass(frozen=True)
class Writer:
    """A student that writes solutions of given problems, kept in a store while they are drawn.

    Attributes:
        run: settings of sampling, task.
        name: of the piece of work, for people.
        student: with its weights.
        pool: the problems.
        key: typed key of all draws.
        temperature, batch: of the draws.
        store: keeps what is drawn.
        guesses: whether guesses among the right solutions are looked for.
    """

    run: Run
    name: str
    student: Loaded
    pool: Prompts
    key: jax.Array
    temperature: float
    batch: int
    store: AnswerStore
    guesses: bool = False

    def draw(
        self,
        decoding: str,
        places: Sequence[int],
        samples: int,
        written: Mapping[int, list[int]] | None = None,
    ) -> list[Drawn]:
        """`samples` solutions of each problem, prompt-major, judged.

        Args:
            decoding: name of the draw.
            places: numbers of the problems.
            samples: solutions of each.
            written: tokens of each problem's solution that are given; only what follows is drawn.
        """
        run, sampling = self.run, self.run.config.sampling.whole(self.temperature)
        given = written or {}
        before = [given.get(place, []) for place in places]
        prompts = [[*self.pool.prompts[p], *some] for p, some in zip(places, before, strict=True)]
        sampler = run.models.sampler(self.student.model)

        def judged(rows: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
            many = [row for row in rows for _ in range(samples)]
            drawn = zip(many, out.tokens_BR, out.length_B, strict=True)
            texts = [run.data.text([*before[row], *ids[:n].tolist()]) for row, ids, n in drawn]
            problems = [self.pool.problems[places[row]] for row in many]
            verdicts = generate.verdicts(run, problems, texts, out.ended_B)
            return {**verdicts, "guess": self._guessed(problems, texts, verdicts["right"])}

        total = len(places) * samples
        done = sum(map(len, self.store.responses(decoding)))
        asked, unit = f"{self.name} was asked to stop;", f"{total} {decoding} are kept"
        with Progress(self.name, total, start=done, unit=decoding, console=run.console) as bar:
            found = generate.answers(
                sampler,
                functools.cache(lambda: sampler.weights(self.student.params, sampling)),
                prompts,
                sampling,
                key=rng.stream_key(self.key, decoding),
                batch=self.batch,
                samples=samples,
                ids=places,
                store=self.store,
                decoding=decoding,
                columns=judged,
                tick=generate.stopping(run, bar, done, asked, unit),
                powers=written is not None,
                rooms=[sampling.max_new_tokens - len(some) for some in before] if given else None,
            )
        out = []
        for i, (new, ended) in enumerate(zip(found.tokens, found.ended_B.tolist(), strict=True)):
            row = i // samples
            tokens, undecided = [*before[row], *new], bool(found.columns["undecided"][i])
            right = bool(found.columns["right"][i]) and ended
            text, guess = run.data.text(tokens), bool(found.columns["guess"][i])
            one = Drawn(
                places[row], i % samples, text, tokens, ended, right, undecided, guess, len(new)
            )
            out.append(one)
        return out

    def _guessed(
        self, problems: Sequence[Problem], texts: Sequence[str], right: Sequence[bool]
    ) -> list[bool]:
        """Whether each completion is right by a guess."""
        rows = [i for i, one in enumerate(right) if one and self.guesses]
        found = np.zeros(len(texts), bool)
        task = self.run.data.task
        found[rows] = task.guesses([problems[i] for i in rows], [texts[i] for i in rows])
        return sharding.of_first_process(found).tolist()


def seen_by_rules(run: Run, found: Sequence[Drawn]) -> list[Solution]:
    """The solutions as the rules see them."""
    key = run.data.task.key
    return [
        Solution(one.problem, key(one.text), one.right, one.score, one.undecided, one.guess)
        for one in found
    ]


def cut(run: Run, found: Sequence[Drawn], how: Format, threshold: float) -> dict[int, list[int]]:
    """Problem -> tokens of one of its wrong solutions before the first low-scored step.

    Of problems without a right solution, where such a step follows another one. Of several the
    longest is taken, of equal ones the first.
    """
    solved = {one.problem for one in found if one.right}
    out: dict[int, list[int]] = {}
    for one in found:
        low = first_low(one.steps, threshold)
        if one.problem in solved or one.undecided or not low:
            continue
        ends = steps.split_tokens(run.data.tokenizer, one.tokens, how)
        kept = one.tokens[: ends[low - 1].stop + 1]
        if len(kept) > len(out.get(one.problem, [])):
            out[one.problem] = kept
    return dict(sorted(out.items()))


def at_equal_tokens(control: Sequence[Drawn], budget: int) -> list[Drawn]:
    """The first solutions that together take at most `budget` tokens; at least one of any."""
    spent = np.cumsum([one.cost for one in control])
    return list(control[: max(1, int(np.searchsorted(spent, budget, side="right")))])
