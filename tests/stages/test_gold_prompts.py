"""No prompt of evaluation or of exploration depends on gold answers or solutions.

Verification and revision: the tests of all prompts in test_solve.py and test_solve_programs.py.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.run.run import Run
from distill_jax.stages import runner
from tests.stages import test_evolve, traced
from tests.stages.traced import plan

pytestmark = pytest.mark.slow


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[list[int]]]]:
    """(prompt, the completions of it) of each draw, in a list that grows."""
    found: list[tuple[list[int], list[list[int]]]] = []
    real = Sampler.generate

    def generate(self: Sampler, weights: Any, prompts: Any, *more: Any, **how: Any) -> Rollout:
        out = real(self, weights, prompts, *more, **how)
        each = zip(out.tokens_BR, out.length_B, strict=True)
        rows = [row[:length].tolist() for row, length in each]
        size = len(rows) // len(prompts)
        for i, prompt in enumerate(prompts):
            ids = [int(token) for token in prompt]
            found.append((ids, rows[i * size : (i + 1) * size]))
        return out

    monkeypatch.setattr(Sampler, "generate", generate)
    return found


def blank(run: Run, *splits: str) -> list[list[int]]:
    """The prompts of problems of which nothing but the question is known."""
    problems = [
        dataclasses.replace(one, answer="", solution="", extra={})
        for split in splits
        for one in run.data.problems(split).problems
    ]
    return [list(map(int, ids)) for ids in run.data.task.prompts(problems).prompts]


def test_evaluation(tmp_path: Path, drawn: list[Any]) -> None:
    s = EvaluateSettings(problems=4, samples=2, distribution=False)
    config = plan({"evaluate": s}, **traced.files(tmp_path / "models"))
    runner.run(config, tmp_path / "run")
    known = blank(Run(config, tmp_path / "run"), "test")
    # Teacher and student, greedy and sampled.
    assert len(drawn) >= 4 * 4 and all(prompt in known for prompt, _ in drawn)


def test_exploration(tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt is a question's, or that and the begin of what the student wrote to it."""
    test_evolve._judged.__wrapped__(monkeypatch)
    test_evolve.models(monkeypatch, A=0)
    how = dataclasses.replace(test_evolve.ONE, explore=True, samples=2, threshold=0.3)
    of = test_evolve.run(tmp_path / "run", traced.files(tmp_path / "models"), how)
    known = blank(of, "train", "validation")
    written: dict[tuple[int, ...], list[list[int]]] = {}
    for prompt, completions in drawn:
        if prompt in known:
            written.setdefault(tuple(prompt), []).extend(completions)
    continued = [prompt for prompt, _ in drawn if prompt not in known]
    assert len(continued) > 1 and len(written) > 12
    for prompt in continued:
        (begin,) = [one for one in written if tuple(prompt[: len(one)]) == one]
        rest = prompt[len(begin) :]
        assert any(np.array_equal(rest, one[: len(rest)]) for one in written[begin])
