"""Stage traces: solutions as drawn, chosen by verdict, going on after a kill; then their labels."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import trace_rows
from distill_jax.inference import store
from distill_jax.reasoning import steps
from distill_jax.report import run_data
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.run import Run
from distill_jax.run.stop import Interrupted, StopSignal
from distill_jax.stages import runner, step_labels, traces
from distill_jax.stages.kinds import view_of
from distill_jax.stages.step_labels import StepLabelSettings
from distill_jax.stages.traces import TraceSettings, choose
from distill_jax.tasks import Judged
from distill_jax.tasks.task import TextTask
from tests.stages.traced import files, judge_by_verdict, plan, read, verdict

pytestmark = pytest.mark.slow

DRAW = TraceSettings(problems=5, samples=4, batch=8)
LABEL = StepLabelSettings(n=2, batch=8, separator="a")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return files(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def _judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by_verdict(monkeypatch)


def run(workdir: Path, made: dict[str, Any], draw: Any = DRAW, label: Any = None) -> Run:
    stages = {"traces": draw} | ({"step_labels": label} if label else {})
    config = plan(stages, **made)
    runner.run(config, workdir)
    return Run(config, workdir)


@pytest.fixture(scope="module")
def whole(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        judge_by_verdict(patch)
        return run(tmp_path_factory.mktemp("whole"), made, label=LABEL)


def rows(of: Run, stage: str = "traces") -> list[dict[str, Any]]:
    return read(of.workdir / stage / "rows.jsonl")


def test_rows_are_the_solutions_as_drawn(whole: Run) -> None:
    pool = whole.data.problems("train")
    sampling = whole.config.sampling.whole(0.8)
    loaded = whole.load_student("base")
    sampler = whole.models.sampler(loaded.model)
    out = sampler.generate(
        sampler.weights(loaded.params, sampling),
        pool.prompts[:5],
        sampling,
        key=rng.stream_key(whole.key(whole.stage("traces")), "traces"),
        prompt_ids=range(5),
        samples=4,
    )
    drawn = [row[:n].tolist() for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
    texts = [whole.data.text(row) for row in drawn]
    found = rows(whole)
    assert [row["tokens"] for row in found] == drawn and len(set(texts)) > 10
    for place, row in enumerate(found):
        problem = pool.problems[place // 4]
        assert row == {
            "id": problem.id, "question": problem.question, "answer": problem.answer,
            "completion": texts[place], "tokens": drawn[place],
            "ended": drawn[place][-1] == whole.data.eos_id,
            "right": verdict(problem.id, texts[place]) == 0,
            "undecided": verdict(problem.id, texts[place]) == 1,
            "sample": place % 4,
        }  # fmt: skip
    right = np.array([row["right"] for row in found])
    figures = (whole.workdir / "traces" / "done.json").read_text()
    assert f'"accuracy": {right.mean()}' in figures and '"rows": 20' in figures
    assert f'"solved_problems": {right.reshape(5, 4).any(axis=1).sum()}' in figures
    assert [one.tokens for one in trace_rows.read(whole.rows("traces"))] == drawn


def test_prefixes_are_the_tokens_that_were_drawn(whole: Run) -> None:
    found, solutions = rows(whole, "step_labels"), rows(whole)
    tok, made_from = whole.data.tokenizer, {row["id"]: row for row in solutions}
    assert len(found) == len(solutions) and made_from
    some = 0
    for row, solution in zip(found, solutions, strict=True):
        cut = steps.split_tokens(tok, solution["tokens"], LABEL.how)
        assert row["step_tokens"] == [step.tokens for step in cut]
        assert row["trace_right"] == solution["right"] and len(row["mc"]) == len(cut)
        counts = [sum(one.values()) for one in (*row["mc"], row["root"]) if one]
        assert set(counts) <= {1, 2}  # 1: after EOS
        some += len(cut) > 1
    assert some > 3  # else this test shows little
    completions = store.read(whole.workdir / "step_labels" / step_labels.STORE_FILE)[1]
    assert {batch.decoding for batch in completions} >= {"wave 0", "wave 1", "wave 2"}


def test_the_report_takes_their_files_for_nothing_else(whole: Run) -> None:
    found = run_data.read(whole.workdir, view_of(whole))
    assert not any(found.metrics.values()) and not any(found.completions.values())


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    whole: Run, made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Sampler.generate, []

    def failing(self: Sampler, *arguments: Any, **how: Any) -> Any:
        calls.append(how["prompt_ids"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "generate", failing)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, made)
        assert not (tmp_path / "traces" / "rows.jsonl").exists()
        patch.setattr(StopSignal, "due", lambda self, step: step == 16)
        with pytest.raises(Interrupted, match="traces was asked to stop; 16 of 20 solutions"):
            run(tmp_path, made)
        patch.undo()
    run(tmp_path, made)
    for name in ("rows.jsonl", traces.STORE_FILE):
        assert (tmp_path / "traces" / name).read_bytes() == (
            whole.workdir / "traces" / name
        ).read_bytes()


def test_other_batches_draw_the_same_rows(whole: Run, made: dict[str, Any], tmp_path: Path) -> None:
    one = dataclasses.replace(DRAW, batch=20)
    other = run(tmp_path, made, one, dataclasses.replace(LABEL, batch=64))
    for stage in ("traces", "step_labels"):
        assert (other.workdir / stage / "rows.jsonl").read_bytes() == (
            whole.workdir / stage / "rows.jsonl"
        ).read_bytes()


def test_the_teacher_writes(whole: Run, made: dict[str, Any], tmp_path: Path) -> None:
    draw = dataclasses.replace(DRAW, teacher=True, keep="right", per_problem=1)
    found = run(tmp_path, made, draw)
    made_from = store.read(tmp_path / "traces" / traces.STORE_FILE)[0]
    assert made_from is not None and "teacher" in made_from and "student" not in made_from
    ids = [row["id"] for row in rows(found)]
    assert all(row["right"] for row in rows(found)) and len(ids) == len(set(ids)) > 1
    assert [row["tokens"] for row in rows(found)] != [row["tokens"] for row in rows(whole)]
    # The student's weights are nothing to it.
    assert "weights of the student" not in (tmp_path / "traces" / "done.json").read_text()


def test_nothing_kept_is_an_error(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Judged(np.zeros(4, bool), np.zeros(4, bool), [{}] * 4, [None] * 4)
    monkeypatch.setattr(TextTask, "judge", lambda *_: never)
    draw = dataclasses.replace(DRAW, batch=4, problems=1, keep="right")
    with pytest.raises(DataError, match="traces keeps none of 4 solutions"):
        run(tmp_path, made, draw)
    with pytest.raises(DataError, match=r"traces.problems=99; wanted: at most the 24 training"):
        run(tmp_path / "more", made, dataclasses.replace(DRAW, problems=99))


RIGHT = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)  # 0, 2, 3 and 6
UNDECIDED = np.array([0, 0, 0, 0, 0, 1, 0, 0], bool)  # 5; 1, 4 and 7 are wrong


@pytest.mark.parametrize(
    ("how", "right", "wrong", "undecided"),
    [
        ({}, 4, 3, 1),
        ({"keep": "right"}, 4, 0, 0),
        ({"keep": "right", "per_problem": 3}, 3, 0, 0),
        ({"balance": True}, 3, 3, 0),
        ({"balance": True, "per_problem": 4}, 2, 2, 0),
    ],
)
def test_which_solutions_are_kept(how: Any, right: int, wrong: int, undecided: int) -> None:
    s = TraceSettings(**how)
    chosen = [choose(RIGHT, UNDECIDED, s, seed=(0, place)) for place in range(20)]
    for kept in chosen:
        assert kept == sorted(set(kept)) and sum(RIGHT[kept]) == right
        assert sum(UNDECIDED[kept]) == undecided and len(kept) == right + wrong + undecided
    assert chosen == [choose(RIGHT, UNDECIDED, s, seed=(0, place)) for place in range(20)]
    whole = len(chosen[0]) in (8, 4) and not s.balance
    assert (len({tuple(kept) for kept in chosen}) == 1) == whole


def test_problems_of_one_verdict_keep_one_when_balanced() -> None:
    s, none = TraceSettings(balance=True), np.zeros(8, bool)
    assert len(choose(~none, none, s, seed=(0, 0))) == len(choose(none, none, s, seed=(0, 0))) == 1
    assert choose(none, ~none, s, seed=(0, 0)) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"temperature": 0.0}, "samples=8 with temperature=0"),
        ({"balance": True, "keep": "right"}, "balance=True with keep=right"),
        ({"per_problem": 9}, "per_problem=9 with samples=8"),
        ({"per_problem": 1, "balance": True}, "per_problem=1 with balance=True"),
        ({"per_problem": 3, "balance": True}, "per_problem=3 with balance=True; wanted: an even"),
        ({"teacher": True, "model": "rl"}, "model=rl with teacher=True"),
    ],
)
def test_settings_that_cannot_be(how: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TraceSettings(**how)
