"""Runs of stage solve: random models, problems, agents, and completions by hand."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.inference.store import AnswerStore, Batch
from distill_jax.models import hf_io, reward_model_io
from distill_jax.models.reward_model_io import PRMConfig
from distill_jax.run.config import RunConfig
from distill_jax.run.models import Models
from distill_jax.stages import solve
from tests.evaluation.scripted import CUT, ByStep, Scripted
from tests.evaluation.test_solver import AGENTS, is_review
from tests.stages.hf import tokenizer, write_model
from tests.stages.small import small

# No question, system message or template holds such a number.
GOLDS = ["7081953", "6620417", "9335702", "5518264"]


class Setup:
    """Random models, problems in files, agents, a random reward model."""

    def __init__(self, root: Path):
        self.root, tok = root, tokenizer()
        for role, seed in (("teacher", 1), ("student", 0)):
            more = {"max_position_embeddings": 2048}
            write_model(root / role, rows=320, tok=tok, seed=seed, noise=0.5, **more)
        for split, count in (("train", 24), ("validation", 3), ("test", len(GOLDS))):
            golds = GOLDS if split == "test" else ["3"] * count
            texts = [f"The {split} box {i} holds 2 pens. How many?" for i in range(count)]
            rows = [{"question": q, "answer": a} for q, a in zip(texts, golds, strict=True)]
            (root / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        rows = [dataclasses.asdict(agent) for agent in AGENTS]
        (root / "agents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_reward_model(root / "student", root / "reward", tok)

    def search(self, **changes: Any) -> RunConfig:
        given = {
            "reward_model": str(self.root / "reward"), "attempts": 4, "width": 2, "search": "beam",
            "max_steps": 4, "selector": "weighted", "sampling__max_new_tokens": 64,
        }  # fmt: skip
        return self.config(**{**given, **changes})

    def config(self, *stages: str, **changes: Any) -> RunConfig:
        shared = {name: value for name, value in changes.items() if "__" in name}
        own = {name: value for name, value in changes.items() if "__" not in name}
        paths = {f"{role}__path": str(self.root / role) for role in ("teacher", "student")}
        config = small(
            stages=("evaluate",), data__source=str(self.root),
            sampling__segment=3, evaluate__teacher=False, evaluate__distribution=False,
            report__problems=0,
            **{"data__max_prompt_tokens": 80, "sampling__max_new_tokens": 6, **shared, **paths},
        )  # fmt: skip
        plan = {**config.plan, "solve": SolveSettings(**own)}
        return dataclasses.replace(config, plan=plan, stages=stages or ("solve",))

    def everything(self, **changes: Any) -> RunConfig:
        given = {
            "reward_model": str(self.root / "reward"), "agents": str(self.root / "agents.jsonl"),
            "attempts": 3, "verify": 2, "rounds": 2, "selector": "weighted_verdict",
        }  # fmt: skip
        return self.config(**{**given, **changes})


def write_reward_model(student: Path, path: Path, tok: Any, system: str | None = None) -> None:
    """A reward model with the student's weights and a random head."""
    geometry, base = hf_io.load_hf(student)
    shape, kept = reward_model_io.trunk(geometry, base)
    drawn = np.random.default_rng(0).standard_normal((2, shape.hidden_size)).astype(np.float32)
    score = {"weight": drawn, "bias": np.zeros(2, np.float32)}
    about = PRMConfig(system_prompt=system)
    reward_model_io.save(path, shape, kept, score, about, tokenizer=tok)


def say(prompt: str, number: int, attempt: int, key: int) -> str:
    """Right and wrong answers, revisions, verdicts, cut texts: by the draw's numbers alone."""
    value = (number * 31 + attempt * 7 + key + len(prompt)) % 11
    if is_review(prompt, "verify"):
        return f"Hm.\nVERDICT: {('correct', 'incorrect', 'unsure', 'x')[value % 4]}"
    found = re.search(r"test box (\d)", prompt)
    gold = GOLDS[int(found[1]) if found else 0]
    # The third gold number is in no candidate, so no prompt may hold it.
    answer = gold if value % 3 == 0 and gold != GOLDS[2] else str(value % 3)
    return f"{'?' if value % 2 else ''} {value}" + (f"\n#### {answer}" if value % 4 else CUT)


def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """The samplers that the stage makes, in a list that grows; none of them decodes."""
    made: list[Scripted] = []

    def sampler(self: Models, model: Any, tok: Any = None) -> Scripted:
        made.append(Scripted(self.data.tokenizer, say))
        made[-1].weights = lambda params, limits: None
        return made[-1]

    monkeypatch.setattr(Models, "sampler", sampler)
    monkeypatch.setattr(solve, "scorer_of", lambda run, settings: ByStep(run.data.tokenizer))
    return made


class Stop(Exception):
    """Stands for whatever ends the program."""


@contextlib.contextmanager
def stopping(number: int) -> Iterator[list[Batch]]:
    """The batches that stores keep, in a list that grows; the one of this number raises Stop."""
    add, kept = AnswerStore.add, list[Batch]()

    def counted(self: AnswerStore, batch: Batch) -> None:
        add(self, batch)
        kept.append(batch)
        if len(kept) == number:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerStore, "add", counted)
        yield kept


def results(workdir: Path) -> dict[str, Any]:
    """The stage's results.json."""
    return json.loads((workdir / "solve" / "results.json").read_text())
