"""Stage synthesis by an endpoint: bought, verified, kept; kills, secrets, budgets."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError, EndpointError
from distill_jax.data import trace_rows
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings, load
from distill_jax.reasoning import programs
from distill_jax.run.run import Run
from distill_jax.run.stop import Interrupted, StopSignal
from distill_jax.stages import synthesis
from distill_jax.stages.supervised import ExampleRows
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.synthesis.settings import (
    BudgetSettings,
    EndpointSettings,
    PaceSettings,
    RetrySettings,
)
from distill_jax.tasks.program import INSTRUCTION
from tests.stages.small import small
from tests.stages.synthesised import (
    GOLD,
    LONG,
    OPEN,
    run,
    verified,
    write_questions,
)
from tests.stages.traced import plan, read
from tests.synthesis.buyer import Killed, killing
from tests.synthesis.scripted import Say, Server, question, serving

pytestmark = pytest.mark.slow

SECRET = "sk-stage-0123456789"


def fence(*lines: str) -> str:
    return "So:\n" + programs.fenced("\n".join(lines)) + "\nDone."


# By id, an answer a sample.
SAID: dict[str, list[Say]] = {
    "g/0": [
        Say(fence("a = 1200 + 345", "assert a - 345 == 1200", "print(a)")),
        Say(fence("a = 1200 + 345  # again", "assert a - 345 == 1200", "print(a)")),  # same shape
        Say(fence("print(1545)")),
        Say(fence("print(1200 - 345)")),
    ],
    "g/1": [
        Say(fence("a = 31 * 27", "assert a == 0", "print(a)")),
        Say("```python\nprint(31 * 27)"),
        Say("It is 837."),
        Say(fence("print(31 * 27)"), finish="length"),
    ],
    "g/2": [
        Say(fence("print(5000 / 0)")),
        Say(fence("import os", "print(5000 - 1)")),
        Say("", finish="content_filter"),
        Say(fence("print('4', 5000 - 1)")),
    ],
    "o/0": [
        Say(fence("print(222 + 111)")),
        Say(fence("a = 222", "print(a + 111)")),
        Say(fence("print(sum([222, 111]))")),
        Say(fence("print(222 - 111)")),
    ],
    # Two shapes agree, and one of them twice.
    "o/1": [
        Say(fence("print(88 - 11)")),
        Say(fence("print(88 - 11)  # twice")),
        Say(fence("a = 88", "print(a - 11)")),
        Say(fence("print(88 + 11)")),
    ],
    # Written, not computed: no vote.
    "o/2": [Say(fence("print(81)")), Say(fence("x = 81", "print(x)")), Say(fence("print('81')")),
            Say(fence("print(9 * 9)"))],
}  # fmt: skip

CLASSES = {
    "assertion": 1, "content_filter": 1, "hardcoded": 4, "length": 1, "no_program:none": 1,
    "no_program:unterminated": 1, "sandbox:error": 1, "sandbox:rejected": 1, "unverified": 6,
    "verified": 5, "wrong": 2,
}  # fmt: skip


def script(body: dict[str, Any], before: int) -> Say:
    text = question(body)
    (name,) = [name for name, asked, _ in GOLD + OPEN if asked in text]
    say = SAID[name][body["seed"]]
    # Everything is refused once.
    return say if before else Say(status=429, headers={"Retry-After": "0"})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "questions.jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(script) as found:
        yield found


def settings(server: Server, questions: Path, **changes: Any) -> SynthesisSettings:
    endpoint = EndpointSettings(
        model="big", base_url=server.url, seed=0, max_tokens=64, label="scripted",
        retry=RetrySettings(backoff_s=0.01), pace=PaceSettings(concurrency=3),
        budget=BudgetSettings(input_price=1.0, output_price=2.0),
    )  # fmt: skip
    made = SynthesisSettings(writer="endpoint", questions=str(questions), endpoint=endpoint)
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def whole(
    server: Server, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", SECRET)
        yield run(tmp_path_factory.mktemp("whole"), settings(server, questions))


def test_programs_are_verified_by_gold_or_by_agreement(whole: Path, server: Server) -> None:
    rows, figures = verified(whole), json.loads((whole / "done.json").read_text())["figures"]
    assert figures["classes"] == CLASSES
    assert [(row["id"], row["sample"], row["evidence"]) for row in rows] == [
        ("g/0", 0, "gold"), ("o/0", 0, "agreement"), ("o/0", 1, "agreement"),
        ("o/0", 2, "agreement"),
    ]  # fmt: skip
    assert rows[0] == {
        "id": "g/0",
        "question": GOLD[0][1],
        "cot_program": "a = 1200 + 345\nassert a - 345 == 1200\nprint(a)\n",
        "tests": ["assert a - 345 == 1200"],
        "final_answer": "1545",
        "answer": "1545",
        "tool_mode": "python",
        "level": 2,
        "source": "endpoint",
        "model": "big",
        "sample": 0,
        "tokens": 5,
        "verdict": "verified",
        "checks": {"ran": True, "assertions": 1, "equal": True, "hardcoded": False},
        "evidence": "gold",
    }
    assert {row["answer"] for row in rows[1:]} == {"333"}
    assert all(row["runtime_s"] > 0 for row in read(whole / synthesis.VERIFIED_FILE))
    # 24 answers of 10 and 5 tokens, at 1 and 2 a million.
    assert figures["spent_tokens"] == 360 and figures["cost"] == pytest.approx(480e-6)
    assert (figures["answers"], figures["solved_problems"], figures["by_agreement"]) == (24, 2, 3)


def test_the_endpoint_sees_questions_and_instruction_and_no_answer(
    whole: Path, server: Server
) -> None:
    assert len(server.bodies) == 48  # each of 24 requests was refused once
    for body in server.bodies:
        (message,) = body["messages"]
        assert message["role"] == "user" and message["content"].endswith(f"\n{INSTRUCTION}")
        assert not any(gold in json.dumps(body) for _, _, gold in GOLD if gold is not None)
        assert body["temperature"] == 0.7 and body["max_tokens"] == 64 and body["model"] == "big"


def test_worked_examples_go_to_the_endpoint(
    server: Server, questions: Path, tmp_path: Path
) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"question": "1+1?", "solution": "It is 2.", "answer": "2"}))
    asked = ChatSettings(system_prompt="Be brief.", instruction="Think.", shots=str(shots))
    ours: Any = SimpleNamespace(data=SimpleNamespace(task=SimpleNamespace(chat=asked)))
    problem = Problem("p", "2+2?", "", "4", None, None, {})
    (one,) = synthesis.wanted_of(ours, settings(server, questions, samples=1), [problem])
    contents = [message["content"] for message in one.request.body["messages"]]
    assert contents == ["Be brief.", "1+1?\nThink.", "It is 2.", "2+2?\nThink."]


def test_what_is_made_is_read_by_the_stages_that_learn(whole: Path) -> None:
    found = trace_rows.read(whole / "rows.jsonl")
    assert len(found) == 23 and sum(one.right for one in found) == 5  # one answer has no text
    cut = [one for one in found if not one.ended]
    assert [(one.id, one.sample) for one in cut] == [("g/1", 3)]
    assert [one.id for one in found] == sorted(one.id for one in found)
    source = DataSettings(source=str(whole / synthesis.VERIFIED_FILE))
    problems = [
        problem for split in ("train", "validation", "test") for problem in _load(source, split)
    ]
    (first,) = [one for one in problems if one.id == "g/0"]
    assert programs.extract(first.solution).program == verified(whole)[0]["cot_program"]
    assert first.answer == "1545" and first.level == 2


def _load(source: DataSettings, split: str) -> list[Any]:
    try:
        return load(source, split, 0)
    except DataError:
        return []


def test_sft_learns_on_what_is_kept(whole: Path, tmp_path: Path) -> None:
    config = plan({"sft": small().plan["sft"]}, **{**LONG, "task": "program"})
    ours = Run(config, tmp_path)
    # The stage's rows, and its verified file, whose programs stand in a fence alone.
    for path, first in (
        (whole / "rows.jsonl", SAID["g/0"][0].text),
        (whole / synthesis.VERIFIED_FILE, programs.fenced(verified(whole)[0]["cot_program"])),
    ):
        rows = ExampleRows(ours, answer_only=0.0, seed=0, path=path)
        assert [problem.id for problem in rows.problems] == ["g/0", "o/0", "o/0", "o/0"]
        assert ours.data.text(rows.examples[0].response) == first
        assert ours.data.text(rows.examples[0].prompt).count(GOLD[0][1]) == 1


def test_the_key_is_nowhere(whole: Path) -> None:
    texts = [path.read_bytes() for path in whole.parent.rglob("*") if path.is_file()]
    assert len(texts) > 6 and not any(SECRET.encode() in text for text in texts)


@pytest.mark.parametrize("number", [1, 20, 60])
def test_killed_it_goes_on_to_the_same_rows(
    whole: Path, questions: Path, tmp_path: Path, number: int
) -> None:
    with serving(script) as server:
        s = settings(server, questions)
        one = dataclasses.replace(s.endpoint, pace=PaceSettings(concurrency=1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", SECRET)
            killing(patch, number, 1.0)
            with pytest.raises(Killed):
                run(tmp_path, dataclasses.replace(s, endpoint=one))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", SECRET)
            asked = sum(server.sold.values())
            enough = property(lambda _: sum(server.sold.values()) > asked + 2, lambda *_: None)
            patch.setattr(StopSignal, "asked", enough, raising=False)
            with pytest.raises(Interrupted, match=r"asked to stop; \d+ of 24 answers are kept"):
                run(tmp_path, s)
        directory = run(tmp_path, s)
        assert set(server.sold.values()) == {1} and len(server.sold) == 24
    assert verified(directory) == verified(whole)
    assert (directory / "rows.jsonl").read_bytes() == (whole / "rows.jsonl").read_bytes()


def test_answers_are_shared_by_runs_through_a_directory(questions: Path, tmp_path: Path) -> None:
    with serving(script) as server:
        s = settings(server, questions)
        shared = dataclasses.replace(s.endpoint, directory=str(tmp_path / "shared"))
        run(tmp_path / "one", dataclasses.replace(s, endpoint=shared, samples=3, agree=2))
        directory = run(tmp_path / "two", dataclasses.replace(s, endpoint=shared, agree=2))
        assert sorted(server.sold.values()) == [1] * 24  # the fourth sample alone is new
        ids = Counter(row["id"] for row in verified(directory))
        assert ids == {"g/0": 1, "o/0": 3, "o/1": 2}
        few = dataclasses.replace(s, endpoint=shared, per_problem=1, assertions=True)
        found = run(tmp_path / "three", few)
        assert [row["id"] for row in verified(found)] == ["g/0"]
        classes = json.loads((found / "done.json").read_text())["figures"]["classes"]
        assert classes["no_assertion"] == 9  # o/0 and o/1, and the one of o/2 that computes


def test_a_deleted_stage_buys_nothing_again(questions: Path, tmp_path: Path) -> None:
    with serving(script) as server:
        s = settings(server, questions, samples=1)
        first = verified(run(tmp_path, s))
        shutil.rmtree(tmp_path / "synthesis")
        assert verified(run(tmp_path, dataclasses.replace(s, agree=2))) == first
        assert sorted(server.sold.values()) == [1] * 6


def test_a_spent_budget_stops_or_finishes(questions: Path, tmp_path: Path) -> None:
    with serving(script) as server:
        s = settings(server, questions)

        def limited(**budget: Any) -> SynthesisSettings:
            made = BudgetSettings(tokens=300, **budget)
            return dataclasses.replace(s, endpoint=dataclasses.replace(s.endpoint, budget=made))

        with pytest.raises(EndpointError, match="no further request fits in the budget") as error:
            run(tmp_path, limited())
        assert "of 24 answers are kept" in str(error.value) and "money unknown" in str(error.value)
        directory = run(tmp_path, limited(spent="finish"))
        figures = json.loads((directory / "done.json").read_text())["figures"]
        assert figures["cost"] is None and 0 < figures["spent_tokens"] <= 300
        assert figures["classes"]["missing"] > 0 and max(server.sold.values()) == 1


def test_a_wrong_model_name_says_so(questions: Path, tmp_path: Path) -> None:
    say = Say(status=404, raw=json.dumps({"error": {"message": "no model big"}}))
    with serving(lambda body, before: say) as server:
        with pytest.raises(EndpointError, match="not_found: .*no model big") as error:
            run(tmp_path, settings(server, questions))
    assert "scripted" in str(error.value) and "run the same command again" in str(error.value)


def test_without_a_key_nothing_begins(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match=r"\$OPENAI_API_KEY is not set"):
        run(tmp_path, settings(server, questions))
    assert not (tmp_path / "synthesis").exists()
