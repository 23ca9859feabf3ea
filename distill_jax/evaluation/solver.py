"""Solves problems with many candidates: sample or search, score, verify, revise; then selection.

One model does all of it. Every draw is a function of the key, of (problem, agent, attempt) and of
the round of a review: neither the batch size nor the other problems change it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import rng
from distill_jax.data.chat import ChatSettings
from distill_jax.evaluation import candidates, evidence, observing, reviews
from distill_jax.evaluation.candidates import UNSURE, Candidate, StepScorer
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solved import Revision, Solved, merged
from distill_jax.inference import agents as solvers
from distill_jax.inference import generate, search
from distill_jax.inference.agents import Agent
from distill_jax.inference.generate import Answers, Tick
from distill_jax.inference.search import Beam, Continuer, SearchResult
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning import steps
from distill_jax.rollout.rounds import Replies
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.run.run import Run

# (phase, completions in it) -> a block that gives the tick of a draw.
Counting = Callable[[str, int], contextlib.AbstractContextManager[Tick | None]]
# Called after each phase with the problem's number and its candidates so far.
Watch = Callable[[str, int, Sequence[Candidate]], None]


@dataclass(frozen=True)
class Solver:
    """One model and its agents, with what they need to solve problems.

    Attributes:
        run: data, task, settings of sampling.
        settings: of the stage.
        agents: who solves, in the file's order.
        sampler: of the model.
        weights: gives its decode weights; called only if something is drawn.
        key: typed key of all draws.
        scorer: the reward model, or None.
        store: keeps what is drawn; None keeps nothing.
        counting: progress of each phase.
        watch: shows the candidates of each phase.
    """

    run: Run
    settings: SolveSettings
    agents: Sequence[Agent]
    sampler: Sampler
    weights: Callable[[], Any]
    key: jax.Array
    scorer: StepScorer | None = None
    store: AnswerStore | None = None
    counting: Counting = lambda phase, total: contextlib.nullcontext()
    watch: Watch = lambda phase, number, found: None

    @property
    def vote_weights(self) -> list[float]:
        """The agents' weights."""
        return [agent.weight for agent in self.agents]

    @property
    def limits(self) -> SamplingSettings:
        """The run's limits on length."""
        return self.run.config.sampling

    def solve(
        self,
        questions: Sequence[str],
        scorer_prompts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[Sequence[int]]],
    ) -> list[Solved]:
        """The candidates of each problem, sampled or searched, scored, verified and revised.

        Args:
            questions: of the problems.
            scorer_prompts: token ids of the prompts that the reward model reads, see `read_by`.
            prompts: token ids by agent and problem.
        """
        found: list[list[Candidate]] = [[] for _ in questions]
        searched: Sequence[SearchResult | None] = [None] * len(questions)
        if self.settings.search:
            found, searched = self._searched(scorer_prompts, prompts[0])
        else:
            for number, agent in enumerate(self.agents):
                key = solvers.key_of(self.key, number)
                new = self.sample(prompts[number], agent, number, key, f"agent {number}")
                for problem, some in enumerate(new):
                    self.watch("sampled", problem, some)
                    found[problem] += some
        found = self.score(scorer_prompts, found)
        candidates.refuse_unscored([one for some in found for one in some])
        if self.settings.verify:
            weights, count = self.vote_weights, self.settings.verify
            asked = [candidates.strongest(some, weights, count) for some in found]
            found = merged(found, self._verified(questions, asked, "verify round 0"))
            self._watch("verified", found)
        solved = [
            Solved(candidates.ordered(some), [], counts)
            for some, counts in zip(found, searched, strict=True)
        ]
        for number in range(1, self.settings.rounds + 1):
            solved = self._revised(questions, scorer_prompts, solved, number)
        return solved

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        agent: Agent,
        number: int,
        key: jax.Array,
        decoding: str,
        *,
        ids: Sequence[int] | None = None,
        count: int = 0,
        first: int = 0,
        powers: bool = False,
    ) -> list[list[Candidate]]:
        """Candidates of each prompt.

        Args:
            prompts, agent, number: token ids; who draws, and its number.
            key, decoding: of the draw, and its name in the store.
            ids: numbers of the problems.
            count: candidates of each prompt; 0 is `attempts`.
            first: number of the first candidate.
            powers: as `generate.answers` takes it.
        """
        count = count or self.settings.attempts
        with self.counting(decoding, len(prompts) * count) as tick:
            drawn = generate.answers(
                self.sampler,
                self.weights,
                prompts,
                agent.sampling(self.limits),
                key=key,
                batch=self.settings.batch,
                samples=count,
                powers=powers,
                ids=ids,
                store=self.store,
                decoding=decoding,
                columns=observing.column(self.run.data),
                tick=tick,
                replies=self.run.data.replies(),
            )
        about = [Candidate(number, first + i % count, "", ()) for i in range(len(drawn.tokens))]
        made = self._candidates(drawn, about)
        return [made[start : start + count] for start in range(0, len(made), count)]

    def score(
        self, scorer_prompts: Sequence[Sequence[int]], found: Sequence[list[Candidate]]
    ) -> list[list[Candidate]]:
        """The candidates of each problem with their scores; unchanged without a reward model."""
        if self.scorer is None:
            return list(found)
        flat = [(problem, one) for problem, some in enumerate(found) for one in some]
        prompt_N = [scorer_prompts[problem] for problem, _ in flat]
        scored = candidates.scored(self.scorer, prompt_N, [one for _, one in flat])
        out: list[list[Candidate]] = [[] for _ in found]
        for (problem, _), one in zip(flat, scored, strict=True):
            out[problem].append(one)
        self._watch("scored", out)
        return out

    def _searched(
        self, scorer_prompts: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]
    ) -> tuple[list[list[Candidate]], list[SearchResult]]:
        """The candidates of each problem from a search, and what was drawn for them."""
        scorer = self.scorer
        assert scorer is not None  # the settings require a reward model
        sampling, tok = self.agents[0].sampling(self.limits), self.run.data.tokenizer
        draw = Continuer(
            self.sampler,
            self.weights,
            prompts,
            sampling,
            self.key,
            self.settings.batch,
            lambda written, new: steps.next_step(tok, written, new, scorer.how),
            self.store,
            self.counting,
        )

        def score(beams: Sequence[Beam]) -> list[float]:
            some = [Candidate(0, 0, "", beam.written) for beam in beams]
            some = candidates.scored(scorer, [scorer_prompts[beam.problem] for beam in beams], some)
            candidates.refuse_unscored(some)
            # Beams with a step for which the reward model has no room come last.
            return [one.score if one.steps and not one.unscored else -1.0 for one in some]

        found = search.search(
            len(prompts), self.settings.shape, draw, score,
            limit=sampling.max_new_tokens, max_steps=self.settings.max_steps,
        )  # fmt: skip
        made = []
        for one in found:
            beams = one.candidates
            about = [Candidate(0, number, "", ()) for number in range(len(beams))]
            written = [list(beam.written) for beam in beams]
            length_B = np.array([len(row) for row in written], np.int32)
            ended_B = np.array([beam.ended for beam in beams], bool)
            made.append(self._candidates(Answers(written, length_B, ended_B, {}), about))
        self._watch("sampled", made)
        return made, found

    def _candidates(self, drawn: Answers, about: Sequence[Candidate]) -> list[Candidate]:
        """Candidates of these completions, with what the task observes of them."""
        own = drawn.own
        texts = [self.run.data.text(row) for row in own]
        found = observing.of(self.run.data.task, texts, drawn.ended_B, drawn.columns)
        return [
            dataclasses.replace(
                one, text=text, tokens=tuple(row), truncated=not end, answer=seen.answer,
                failures=seen.failures,
            )
            for one, text, row, end, seen in zip(
                about, texts, own, drawn.ended_B.tolist(), found, strict=True
            )
        ]  # fmt: skip

    def _verified(
        self, questions: Sequence[str], asked: Sequence[Sequence[Candidate]], decoding: str
    ) -> list[list[Candidate]]:
        """These candidates with their verdicts, each from one greedy completion."""
        requests = [
            _Request(problem, one, (reviews.verify_text(questions[problem], one.text),))
            for problem, some in enumerate(asked)
            for one in some
        ]
        # A verifier gets no agent's system message and no instruction how to answer a problem.
        chat = dataclasses.replace(self.run.config.data.chat, instruction="", shots="")
        fits, drawn = self._review(requests, chat, decoding, self.limits.whole(0.0))
        places = {(one.problem, one.candidate.slot): place for place, one in enumerate(fits)}
        out: list[list[Candidate]] = [[] for _ in asked]
        for request in requests:
            one = dataclasses.replace(request.candidate, verdict=UNSURE)
            place = places.get((request.problem, one.slot))
            if place is not None and drawn is not None:  # otherwise its prompt has no room
                said = self.run.data.text(drawn.tokens[place])
                read = reviews.verdict(said, ended=bool(drawn.ended_B[place]))
                one = dataclasses.replace(
                    one, verdict=read or UNSURE, verdict_tokens=len(drawn.tokens[place])
                )
            out[request.problem].append(one)
        return out

    def _revised(
        self,
        questions: Sequence[str],
        scorer_prompts: Sequence[Sequence[int]],
        solved: Sequence[Solved],
        round_: int,
    ) -> list[Solved]:
        """The problems after a round: candidates with evidence against them are revised."""
        requests: list[_Request] = []
        revisions: list[list[Revision]] = [[] for _ in solved]
        for problem, some in enumerate(solved):
            for one in some.kept:
                reasons = evidence.found(
                    one, some.kept, self.settings.threshold, self.settings.evidence
                )
                if reasons:
                    shown = self.run.data.task.shown(one.text)
                    texts = reviews.revise_texts(questions[problem], shown, reasons)
                    requests.append(_Request(problem, one, texts))
                    kinds = tuple(reason.kind for reason in reasons)
                    revisions[problem].append(Revision(one.slot, round_, kinds, one.round))
        new: list[list[Candidate]] = [[] for _ in solved]
        for number, agent in enumerate(self.agents):
            chosen = [one for one in requests if one.candidate.agent == number]
            chat = agent.chat(self.run.data.task.chat)
            decoding = f"revise round {round_} agent {number}"
            sampling, replies = agent.sampling(self.limits), self.run.data.replies()
            fits, drawn = self._review(chosen, chat, decoding, sampling, replies, observe=True)
            if drawn is None:
                continue
            about = [
                Candidate(old.agent, old.attempt, "", (), round=round_, revised_from=old.round)
                for _, old, _ in fits
            ]
            for (problem, _, _), one in zip(fits, self._candidates(drawn, about), strict=True):
                new[problem].append(one)
        new = self.examined(questions, scorer_prompts, solved, new, round_)
        for problem, found in enumerate(new):
            if found:
                self.watch("revised", problem, found)
        rounds = zip(solved, new, revisions, strict=True)
        return [before.after(drawn, about) for before, drawn, about in rounds]

    def examined(
        self,
        questions: Sequence[str],
        scorer_prompts: Sequence[Sequence[int]],
        solved: Sequence[Solved],
        new: Sequence[list[Candidate]],
        round_: int,
        about: str = "round",
    ) -> list[list[Candidate]]:
        """New candidates of these problems with scores, and verdicts as what they may replace has.

        round_, about: name the draw of the verdicts.
        """
        if not any(new):
            return list(new)
        new = self.score(scorer_prompts, new)
        if not self.settings.verify:
            return new
        # `better` compares verdicts: both have one, or neither.
        olds = [{one.slot: one for one in some.kept} for some in solved]
        asked = [
            [one for one in some if old[one.slot].verdict is not None]
            for some, old in zip(new, olds, strict=True)
        ]
        return merged(new, self._verified(questions, asked, f"verify {about} {round_}"))

    def _review(
        self,
        requests: Sequence["_Request"],
        chat: ChatSettings,
        decoding: str,
        sampling: SamplingSettings,
        replies: Replies | None = None,
        *,
        observe: bool = False,
    ) -> tuple[list["_Request"], Answers | None]:
        """(the requests whose prompt has room, one completion of each).

        observe: the completions are candidates.
        """
        positions = self.sampler.model.config.max_position_embeddings
        # Of several turns: rather less evidence than no room for the outputs between them.
        rooms = [positions - new for new in (sampling.response_tokens, sampling.max_new_tokens)]
        made = []
        for one in requests:
            prompts = [reviews.prompt(self.run.data.tokenizer, text, chat) for text in one.texts]
            fitting = (prompt for room in rooms for prompt in prompts if len(prompt) <= room)
            if fits := next(fitting, None):
                made.append((one, fits))
        if not made:
            return [], None
        with self.counting(decoding, len(made)) as tick:
            drawn = generate.answers(
                self.sampler,
                self.weights,
                [prompt for _, prompt in made],
                sampling,
                key=rng.stream_key(self.key, decoding),
                batch=self.settings.batch,
                ids=[solvers.request_id(one.problem, *one.candidate.slot) for one, _ in made],
                store=self.store,
                decoding=decoding,
                columns=observing.column(self.run.data) if observe else None,
                tick=tick,
                replies=replies,
            )
        return [one for one, _ in made], drawn

    def _watch(self, phase: str, found: Sequence[Sequence[Candidate]]) -> None:
        for problem, some in enumerate(found):
            self.watch(phase, problem, some)


class _Request(NamedTuple):
    """What the model is asked about a candidate: the first of the texts that has room."""

    problem: int
    candidate: Candidate
    texts: tuple[str, ...]
