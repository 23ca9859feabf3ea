"""Stages under task program: random models whose completions stand for programs that are run."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_jax.data.fences import fenced
from distill_jax.evaluation import export as exports
from distill_jax.evaluation import subjects
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.run.config import RunConfig
from distill_jax.run.data import Data
from distill_jax.run.run import Run
from distill_jax.run.stop import Interrupted
from distill_jax.sandbox import shared
from distill_jax.stages import runner
from distill_jax.stages.rl_step import RLStep
from distill_jax.stages.traces import TraceSettings
from distill_jax.tasks import ProgramTask, program_runs
from tests.sandbox.processes import zygotes
from tests.stages.small import copy_stages, rows, small, weights

pytestmark = pytest.mark.slow

# What a completion says, by the sum of its tokens. Answers of these problems lie in 0..8.
SAYS = [
    *(fenced(f"x = {number} + 1\nassert x > 0\nprint(x)") for number in range(8)),
    fenced("print(4)"),
    fenced("print(5)\n1 / 0"),
    "```python\nprint(6)",
]


def says(self: Data, tokens: Any, tokenizer: Any = None) -> str:
    return SAYS[sum(int(token) for token in tokens) % len(SAYS)]


def config(**changes: Any) -> RunConfig:
    made = small(
        **{
            "task": "program",
            "programs.instruction": "",
            "programs.wall_s": 30.0,
            "data.problems.style": "program",
            "data.problems.max_value": 8,
            "sampling.max_new_tokens": 32,
            "rl.eval_every": 0,
            "rl.rewards.intrinsic_weight": 0.0,
            "rl.rewards.format_weight": 0.1,
            "checkpoint.every": 1,
            "evaluate.teacher": False,
            "evaluate.distribution": False,
            **changes,
        }
    )
    plan = {
        **{name: made.plan[name] for name in ("pretrain", "sft", "rl")},
        "traces": TraceSettings(model="sft", problems=6, samples=4, batch=24),
        "solve": SolveSettings(model="sft", problems=4, attempts=4, batch=16),
        "evaluate": made.plan["evaluate"],
    }
    return dataclasses.replace(made, plan=plan, stages=tuple(plan))


# Completions of stage rl that ended, and those whose programs began while others were drawn.
ENDED, BEGUN = list[str](), list[str]()


def noted_begin(self: ProgramTask, texts: list[str], real: Any = ProgramTask.begin) -> None:
    BEGUN.extend(texts)
    real(self, texts)


def noted_judge(self: RLStep, drawn: Any, real: Any = RLStep._judge) -> Any:
    pairs = zip(drawn.texts, drawn.rollout.ended_B, strict=True)
    ENDED.extend(text for text, ended in pairs if ended)
    return real(self, drawn)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A work directory in which all stages have run."""
    workdir = tmp_path_factory.mktemp("programs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Data, "text", says)
        patch.setattr(ProgramTask, "begin", noted_begin)
        patch.setattr(RLStep, "_judge", noted_judge)
        program_runs.forget()
        shared.close_shared()
        before = zygotes()  # of sandboxes that other files hold
        runner.run(config(), workdir)
        assert zygotes() <= before
        yield workdir


def found(text: str) -> tuple[str, bool]:
    """(what a completion's program prints or why it fails, whether it asserts), by hand."""
    place = SAYS.index(text)
    if place < 8:
        return str(place + 1), True
    return ["4", "error", "no_program:unterminated"][place - 8], False


def test_rewards_are_what_the_programs_print(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "rl" / "completions.jsonl").open()]
    table = [(row["completion"], row["gold"], row["correctness"]) for row in lines]
    assert {score for *_, score in table} == {0.0, 1.0}
    for completion, gold, score in table:
        assert score == (found(completion)[0] == gold)
    first = rows(whole, "rl")[0]
    assert 0 < first["programs/ran"] < 1 and 0 < first["programs/asserted"] <= 1
    assert first["rewards/correctness/undecided"] == 0
    # Every complete fence that prints states an answer, and it must have ended.
    assert 0 <= first["rewards/format/mean"] <= 1


def test_programs_begin_while_others_are_drawn(whole: Path) -> None:
    del whole
    assert BEGUN and sorted(BEGUN) == sorted(ENDED)


def test_traces_and_votes_read_the_printed_answer(whole: Path) -> None:
    kept = [json.loads(line) for line in (whole / "traces" / "rows.jsonl").open()]
    assert len(kept) == 24 and 0 < sum(row["right"] for row in kept) < 24
    for row in kept:
        assert row["right"] == (found(row["completion"])[0] == row["answer"])
    solved = json.loads((whole / "solve" / "results.json").read_text())
    for row in solved["results"]:
        for one in row["candidates"]:
            printed = found(one["text"])[0]
            assert one["answer"] == (printed if printed.isdecimal() else None)


def test_evaluation_names_failures_and_hard_coded_answers(whole: Path) -> None:
    result = json.loads((whole / "evaluate" / "sft.json").read_text())
    written = json.loads((whole / "evaluate" / "sft" / "evaluation_results.json").read_text())
    sampled = result["sampled"]
    assert written["statistics"]["sampled"]["programs"] == sampled["programs"]
    assert "right but hard-coded" in (whole / "report.md").read_text()
    texts = [text for row in result["problems"] for text in row["sampled"]]
    failures = [word for text in texts if not (word := found(text)[0]).isdecimal()]
    programs = sampled["programs"]
    assert programs["failures"] == {word: failures.count(word) for word in sorted(set(failures))}
    assert programs["ran"] == 1 - len(failures) / len(texts)
    assert sampled["hacking"]["no_answer"] == len(failures) / len(texts)
    for row in result["problems"]:
        right = [found(text)[0] == row["answer"] for text in row["sampled"]]
        assert row["sampled_right"] == right


def test_export_writes_the_printed_answer(whole: Path, tmp_path: Path) -> None:
    run = Run(config(), whole)
    out = tmp_path / "answers.jsonl"
    exports.export(run, subjects.named(run, "sft"), exports.Request("test", 4, 0), out)
    run.data.task.close()
    lines = [json.loads(line) for line in out.open()]
    assert len(lines) == 4
    for row in lines:
        printed = found(row["response"])[0]
        assert row["answer_text"] == (printed if printed.isdecimal() else None)
        assert row["right"] == (printed == row["ground_truth_text"])


def test_stopped_after_a_step_it_resumes_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = copy_stages(whole, tmp_path / "broken", "pretrain", "sft")
    real = RLStep.__call__

    def terminated(self: RLStep, state: Any, step: int) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, step)

    how = dataclasses.replace(config(), stages=("rl",))
    with monkeypatch.context() as patch:
        patch.setattr(RLStep, "__call__", terminated)
        with pytest.raises(Interrupted, match="saved at step 1 of 2"):
            runner.run(how, broken)
    program_runs.forget()
    runner.run(how, broken)
    assert weights(broken, "rl") == weights(whole, "rl")
    assert rows(broken, "rl") == rows(whole, "rl")
    same = [(one / "rl" / "completions.jsonl").read_bytes() for one in (broken, whole)]
    assert same[0] == same[1]
