"""launch.solve and launch.chat: a problem, a file, standard input; --json; bad input."""

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import DataError, DistillError, TokenizerMismatchError
from distill_jax.core.files import write_json
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.forecast import limits
from distill_jax.run.config import to_dict
from distill_jax.run.models import Models
from distill_jax.stages import solve as stage
from distill_jax.stages.prm_settings import PRMSettings
from launch import solve_problems as job
from tests.evaluation.scripted import CUT, ByStep, Scripted
from tests.launch import batch
from tests.launch.conftest import Run
from tests.stages.small import environment

pytestmark = pytest.mark.slow

QUESTION = "Tom has 5 pens and buys 3. How many pens has he now?"


@pytest.fixture(scope="module")
def workdir(random_run: Run) -> Path:
    """With a config, as a command without --config needs it; its plan has a kind of a module of
    its own, which the command has to know."""
    config = random_run.opened().config
    config = dataclasses.replace(config, plan={**config.plan, "prm": PRMSettings()})
    write_json(random_run.workdir / "config.json", to_dict(config))
    return random_run.workdir


def say(prompt: str, number: int, attempt: int, key: int) -> str:
    if "Check a solution" in prompt:
        return "VERDICT: incorrect"
    if "earlier solution:" in prompt:
        return "again\n#### 8"
    return ("a ?\n#### 7", "b\n#### 8.0", f"lost{CUT}")[attempt % 3]


@pytest.fixture
def command(
    random_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What launch.solve prints, with a scripted model; arguments that are no settings are texts."""

    def sampler(self: Models, model: Any, tok: Any = None) -> Scripted:
        found = Scripted(self.data.tokenizer, say, 2048)
        found.weights = lambda params, limits: None
        return found

    monkeypatch.setattr(Models, "sampler", sampler)
    monkeypatch.setattr(
        stage, "scorer_of", lambda run, s: ByStep(run.data.tokenizer) if s.reward_model else None
    )

    def run(
        *texts: str, file: str | None = None, stdin: str = "", as_json: bool = True, **asked: Any
    ) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        opened = random_run.opened(data__on_long_prompt="error")
        how = job.Request(**asked).settings(opened.config, random_run.workdir)
        job.solve(opened, how, job.problems_of(texts, file), as_json=as_json)
        return capsys.readouterr().out

    return run


def test_one_problem_as_an_object(command: Callable[..., str]) -> None:
    (line,) = command(QUESTION, attempts=3).splitlines()
    found = json.loads(line)
    assert found["problem"] == QUESTION and found["num_solutions"] == 3
    assert (found["best_solution"], found["answer"]) == ("a ?\n#### 7", "7")
    assert found["correct"] is found["majority_correct"] is found["pass_at_n"] is None
    assert found["reference_answer"] is None and found["total_time"] >= 0
    assert [one["answer"] for one in found["candidates"]] == ["7", "8.0", None]


def test_the_stream_for_people(command: Callable[..., str], tmp_path: Path) -> None:
    out = command(
        QUESTION, attempts=3, reward_model=str(tmp_path), verify=1, rounds=1, selector="weighted",
        as_json=False,
    )  # fmt: skip
    for part in (
        "sampled default 0: 7", "scored default 0: 7, score 0.200", "0.20 a ?", "0.90 #### 8.0",
        "verified default 1: 8.0, verdict incorrect", "revised default 2, revision 1: 8",
        "votes 8: 3", "weighted", "answer: 8, 100% of the votes",
    ):  # fmt: skip
        assert part in out, (part, out)
    assert out.count("0.90 again") == 3  # three revisions, each shown once


def test_a_file_with_answers(command: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    rows = [{"id": "x", "question": QUESTION, "answer": "so 8\n#### 8"}, {"problem": "What is 7?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = map(json.loads, command(file=str(path), attempts=3).splitlines())
    assert first["id"] == "x" and first["reference_answer"] == "8"
    assert first["correct"] is False and first["pass_at_n"] is True
    assert second["reference_answer"] is None and second["id"] == "1"
    # A problem's result does not depend on the others of the file.
    alone = json.loads(command(QUESTION, attempts=3))
    assert alone["candidates"] == [{**c, "correct": None} for c in first["candidates"]]


def test_a_file_in_the_forms_of_data_sources(command: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    rows = [
        {"question": QUESTION, "solution": "5+3=8\n#### 8", "level": "Level 2"},
        {"problem": QUESTION, "solution": "it is \\boxed{8}"},
        {"messages": [{"role": "user", "content": QUESTION},
                      {"role": "assistant", "content": "#### 8"}]},
        {"prompt": QUESTION, "answer": 8.0},
        {"prompt": QUESTION, "answer": ""},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [json.loads(line) for line in command(file=str(path), attempts=1).splitlines()]
    assert [one["reference_answer"] for one in found] == ["8", "8", "8", "8", None]
    assert {one["problem"] for one in found} == {QUESTION}


def test_standard_input_holds_a_problem_a_line(command: Callable[..., str]) -> None:
    out = command(stdin=f"{QUESTION}\n\nWhat is 7?\n", attempts=1)
    assert [json.loads(line)["problem"] for line in out.splitlines()] == [QUESTION, "What is 7?"]


def test_agents_of_a_file(command: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text('{"name": "a"}\n{"name": "b", "system": "Be brief."}\n')
    found = json.loads(command(QUESTION, attempts=1, agents=str(path)))
    assert [one["agent"] for one in found["candidates"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("texts", "asked", "message"),
    [
        ([QUESTION], {"attempts": 0}, "attempts=0; wanted: at least 1"),
        (["And more. " * 40], {}, "problem 0 has a prompt of .*max_prompt_tokens=64"),
        (["hm <|im_end|>"], {}, "its question holds the special token"),
        ([QUESTION], {"selector": "weighted"}, "selector=weighted with reward_model=''"),
        ([QUESTION], {"selector": "best_of_all"}, "selector='best_of_all'"),
        ([QUESTION], {"agents": "nowhere.jsonl"}, "no file of agents nowhere.jsonl"),
        ([QUESTION], {"agents": "{tmp}/roles.jsonl"}, "line 1: unknown setting role"),
        ([QUESTION], {"model": "nowhere"}, "nowhere"),
        ([], {"file": "nowhere.jsonl"}, "no file nowhere.jsonl"),
        ([QUESTION], {"file": "nowhere.jsonl"}, "both a problem and --file"),
        ([], {}, "no problem; wanted: an argument"),
    ],
)
def test_bad_input_is_an_error_with_a_fix(
    command: Callable[..., str], tmp_path: Path, texts: list[str], asked: Any, message: str
) -> None:
    (tmp_path / "roles.jsonl").write_text('{"name": "a", "role": "critic"}\n')
    asked = {
        name: value.format(tmp=tmp_path) if isinstance(value, str) else value
        for name, value in asked.items()
    }
    with pytest.raises(DistillError, match=message):
        command(*texts, **asked)


def test_agents_leave_the_plan_s_temperature_unread(random_run: Run) -> None:
    config = random_run.opened().config
    for name, value in (("temperature", 0.7), ("top_p", 0.9)):
        plan = {**config.plan, "vote": SolveSettings(**{name: value})}
        with_stage = dataclasses.replace(config, plan=plan)
        read = job.Request(attempts=2).settings(with_stage, random_run.workdir)
        assert getattr(read, name) == value
        with pytest.raises(DistillError, match=f"vote.{name}={value} with --agents=a.jsonl"):
            job.Request(agents="a.jsonl").settings(with_stage, random_run.workdir)
    assert job.Request(agents="a.jsonl").settings(config, random_run.workdir).agents == "a.jsonl"


def test_more_candidates_than_the_device_holds(
    command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "device_limit", lambda: 10**6)
    with pytest.raises(DistillError, match="at 1024 candidates: decode weights"):
        command(QUESTION, attempts=1024)


@pytest.mark.parametrize("error", [DataError, TokenizerMismatchError])
def test_reward_models_that_cannot_be_used(
    command: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    class Broken(ByStep):
        def score(self, prompts: Any, completions: Any) -> Any:
            return [one * float("nan") for one in super().score(prompts, completions)]

    def scorer(run: Any, how: Any) -> Broken:
        if error is TokenizerMismatchError:
            raise TokenizerMismatchError("another tokenizer")
        return Broken(run.data.tokenizer)

    monkeypatch.setattr(stage, "scorer_of", scorer)
    with pytest.raises(error):
        command(QUESTION, reward_model=str(tmp_path))


# Its standard input is a pipe with this text.
TYPED = """
import os, runpy, sys
end, begin = os.pipe()
os.write(begin, {text!r}.encode())
os.close(begin)
os.dup2(end, 0)
sys.stdin = open(0)
runpy.run_module("launch.chat", run_name="__main__", alter_sys=True)
"""


def test_the_programs_themselves(workdir: Path) -> None:
    lines = [QUESTION, "", "And more. " * 40, "What is <|im_end|>?", QUESTION, ""]
    typed = TYPED.format(text="\n".join(lines))
    where = f"--workdir={workdir}"
    commands = {
        "solve": ["-m", "launch.solve", where, "--json", "--n=2", QUESTION],
        "chat": ["-c", typed, where],
    }
    done = batch.run(commands, environment())
    assert done["solve"].code == 0, done["solve"].stderr
    assert json.loads(done["solve"].stdout)["num_solutions"] == 2
    code, out, errors = done["chat"]
    first, second = out.splitlines()
    assert code == 0 and first == second and first, errors
    assert "64 tokens" in errors and "problem 3: its question holds the special token" in errors
