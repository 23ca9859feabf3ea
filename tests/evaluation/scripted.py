"""A sampler that says what a test wrote, and a solver on it: no model, nothing compiled."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from distill_jax.data import chat
from distill_jax.data.sources import DataSettings
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solver import Solver
from distill_jax.inference.agents import Agent
from distill_jax.reasoning.steps import Format
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.tasks import TASKS, ProgramSettings
from tests.stages.hf import tokenizer

KEY = jax.random.key(0)
# Ends a scripted completion that is cut off: it has no EOS.
CUT = "…"
ALONE = (Agent("default"),)


class Scripted:
    """`say(prompt, number, sample, key)` is the text of a completion; `prompts` holds all texts
    that were put to it, `calls` the number of completions of each call.
    """

    def __init__(self, tok, say, positions=4096):
        self.tok, self.say, self.prompts, self.calls = tok, say, [], []
        self.pad_id = chat.eos_id(tok)
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))

    def generate(
        self, weights, prompts, settings, *,
        key, prompt_ids, samples=1, firsts=None, stops=None, rooms=None, ended=None,
    ):  # fmt: skip
        assert ended is None  # nobody who scripts answers listens
        texts = [self.tok.decode(ids) for ids in prompts]
        self.prompts += texts
        self.calls.append(len(prompts) * samples)
        mark = int(np.asarray(jax.random.key_data(key))[-1])
        rows = []
        rooms = [None] * len(prompts) if rooms is None else rooms
        firsts = [0] * len(prompts) if firsts is None else firsts
        stops = [lambda ids: None] * len(prompts) if stops is None else stops
        each = zip(texts, prompt_ids, firsts, rooms, stops, strict=True)
        for text, number, first, room, stop in each:
            for sample in range(first, first + samples):
                said = self.say(text, int(number), sample, mark)
                ids = self.tok(said.removesuffix(CUT), add_special_tokens=False)["input_ids"]
                ids = (ids + ([] if said.endswith(CUT) else [chat.eos_id(self.tok)]))[:room]
                rows.append(ids[: stop(ids)])
        length = np.array([len(row) for row in rows], np.int32)
        tokens = np.zeros((len(rows), length.max()), np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        ended = np.array([row[-1] == chat.eos_id(self.tok) for row in rows])
        return Rollout(tokens, length, ended, np.zeros(tokens.shape, np.float32))


class ByStep:
    """A reward model: a step scores .9, one with a ? in it .2; the whole is the lowest."""

    how = Format()

    def __init__(self, tok):
        self.tok, self.calls = tok, 0

    def score(self, prompts, completions):
        self.calls += 1
        texts = [self.tok.decode(ids, skip_special_tokens=True) for ids in completions]
        return [
            np.array([0.2 if "?" in step else 0.9 for step in text.split("\n") if step], np.float32)
            for text in texts
        ]

    def aggregate(self, steps):
        return np.array([one.min() if len(one) else np.nan for one in steps], np.float64)


@functools.cache
def tok() -> Any:
    return tokenizer()


def run_of(task: str = "text", **data: Any) -> Any:
    settings = DataSettings(**data)
    # Programs on a busy machine must not run out of time.
    limits = ProgramSettings(instruction="", wall_s=30.0, cpu_s=30.0)
    return SimpleNamespace(
        config=SimpleNamespace(
            data=settings,
            task=task,
            programs=limits,
            seed=0,
            sampling=SamplingSettings(max_new_tokens=64),
        ),
        data=SimpleNamespace(
            task=TASKS[task](settings, tok(), limits),
            tokenizer=tok(),
            replies=lambda: None,
            text=lambda tokens: chat.decode(tok(), tokens),
        ),
    )


def solver(say, agents=ALONE, *, scores=False, positions=4096, task="text", **settings) -> Solver:
    scorer = ByStep(tok()) if scores else None
    given = SolveSettings(reward_model="somewhere" if scores else "", **settings)
    return Solver(
        run_of(task), given, agents, Scripted(tok(), say, positions), lambda: None, KEY, scorer
    )


def prompts_of(found: Solver, questions) -> Any:
    """(plain prompts, prompts by agent)."""
    from distill_jax.data.problem import Problem
    from distill_jax.inference import agents

    problems = [Problem(str(i), question, "", "0") for i, question in enumerate(questions)]
    data, prompts = agents.prompts(found.run, problems, found.agents)
    return data.prompts, prompts


def solve(found: Solver, questions) -> Any:
    return found.solve(questions, *prompts_of(found, questions))
