"""Runs of the stages that make rows: a random model that writes, and completions by hand."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.run.config import RunConfig
from distill_jax.run.settings import StageSettings
from distill_jax.tasks import Judged
from distill_jax.tasks.task import TextTask
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import small

CUT = "…"  # ends a completion that has no EOS


def files(root: Path, **changes: Any) -> dict[str, Any]:
    """Settings of models and problems below a directory, made here; changes: of the student."""
    tok = tokenizer()
    return {
        "teacher__path": str(write_model(root / "teacher", rows=320, tok=tok, seed=1, noise=0.5)),
        "student__path": str(
            write_model(root / "student", rows=320, tok=tok, noise=0.5, **changes)
        ),
        "data__source": str(write_problems(root / "data")),
        "data__max_prompt_tokens": 64,
        "sampling__max_new_tokens": 12,
        "sampling__segment": 6,
    }


def plan(stages: Mapping[str, StageSettings], **changes: Any) -> RunConfig:
    """A run of these stages alone."""
    config = small(stages=("sft",), **changes)
    return dataclasses.replace(config, plan=dict(stages), stages=tuple(stages))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


class Scripted:
    """In place of Sampler.generate: the completions of each prompt by what its text ends with.

    Attributes:
        replies: prompt -> its completions, of which CUT ends those without EOS; as a mapping,
            from what was written after the assistant's turn began.
        calls: number of prompts in each call.
        fail_at: the call that raises KeyboardInterrupt in place of the process's end.
    """

    def __init__(self, replies: Mapping[str, list[str]] | Callable[[str], list[str]]):
        self.tok, self.replies = tokenizer(), replies
        self.calls: list[int] = []
        self.fail_at: int | None = None
        self.prompts: list[str] = []

    def generate(self, weights: Any, prompts: Any, settings: Any, **how: Any) -> Rollout:
        if len(self.calls) == self.fail_at:
            self.fail_at = None
            raise KeyboardInterrupt
        self.calls.append(len(prompts))
        rows = [row for prompt in prompts for row in self._of(prompt, how["samples"])]
        ended = np.array([row[-1] == self.tok.eos_token_id for row in rows])
        tokens = np.full((len(rows), max(map(len, rows))), self.tok.pad_token_id, np.int32)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
        length = np.array(list(map(len, rows)), np.int32)
        return Rollout(tokens, length, ended, np.zeros(tokens.shape, np.float32))

    def _of(self, prompt: list[int], samples: int) -> list[list[int]]:
        self.prompts.append(self.tok.decode(prompt))
        if isinstance(self.replies, Mapping):
            found = self.replies[self.prompts[-1].rpartition("<|im_start|>assistant\n")[2]]
        else:
            found = self.replies(self.prompts[-1])
        assert len(found) == samples
        end = self.tok.eos_token_id
        return [
            self.encode(one.removesuffix(CUT)) + ([] if one.endswith(CUT) else [end])
            for one in found
        ]

    def encode(self, text: str) -> list[int]:
        return self.tok.encode(text, add_special_tokens=False)


def scripted(
    monkeypatch: pytest.MonkeyPatch, replies: Mapping[str, list[str]] | Callable[[str], list[str]]
) -> Scripted:
    """Every sampler from now on."""
    fake = Scripted(replies)
    generate: Callable[..., Rollout] = lambda self, *args, **how: fake.generate(*args, **how)  # noqa: E731
    monkeypatch.setattr(Sampler, "generate", generate)
    return fake


def verdict(name: str, text: str) -> int:
    """Of a problem's id and a text; 0: right, 1: undecided, 2 and 3: wrong."""
    return (sum(map(ord, name)) + len(text)) % 4


def judge_by_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Task text judges by `verdict` from now on: a random model solves nothing."""

    def judge(self: TextTask, problems: Any, texts: list[str], ended_B: Any) -> Judged:
        found = np.array([verdict(p.id, text) for p, text in zip(problems, texts, strict=True)])
        return Judged(found == 0, found == 1, [{} for _ in texts], [None for _ in texts])

    monkeypatch.setattr(TextTask, "judge", judge)
