"""Stage synthesis from a file of answers and from the teacher; its problems and settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core import unread
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import trace_rows
from distill_jax.run.run import Run
from distill_jax.stages import synthesis
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.synthesis.settings import (
    EndpointSettings,
    PaceSettings,
)
from tests.stages.synthesised import (
    problems_of,
    run,
    verified,
    write_questions,
    write_rows,
)
from tests.stages.traced import CUT, files, plan, read, scripted

pytestmark = pytest.mark.slow

TEXTS = [
    {"id": "g/0", "text": "1200 + 345 = 1545\n#### 1545", "model": "a", "tokens": 12},
    {"question": "  what IS 31 times 27? ", "response": "The answer is 837."},
    {"id": "g/1", "response": "#### 836"},
    {"id": "g/2", "response": None},
    {"id": "g/2", "text": "#### 4999", "finish_reason": "length"},
    {"id": "g/2", "text": "#### 4999<|im_end|>"},
    {"id": "o/0", "text": "one\n#### 333"},
    {"id": "o/0", "text": "one  \n#### 333"},
    {"id": "o/0", "text": "two\n#### 333"},
    {"id": "o/0", "text": "three\n#### 333"},
    {"id": "o/0", "text": "four\n#### 111"},
    {"id": "o/1", "text": "no idea"},
    {"id": "x/9", "text": "of another problem"},
]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "questions.jsonl")


def test_answers_of_a_file_in_words(questions: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "answers.jsonl", TEXTS)
    s = SynthesisSettings(writer="file", questions=str(questions), answers=path)
    directory = run(tmp_path / "run", s, task="text")
    rows = verified(directory)
    assert [(row["id"], row["sample"], row["evidence"]) for row in rows] == [
        ("g/0", 0, "gold"), ("g/1", 0, "gold"), ("o/0", 0, "agreement"), ("o/0", 2, "agreement"),
        ("o/0", 3, "agreement"),
    ]  # fmt: skip
    assert rows[0]["solution"] == TEXTS[0]["text"] and "cot_program" not in rows[0]
    assert (rows[0]["tokens"], rows[0]["model"], rows[1]["model"]) == (12, "a", "answers.jsonl")
    assert rows[0]["tool_mode"] == "none" and rows[0]["source"] == "file"
    figures = json.loads((directory / "done.json").read_text())["figures"]
    assert figures["other_rows"] == 1 and figures["classes"] == {
        "empty": 1, "length": 1, "no_answer": 1, "special_token": 1, "unverified": 1,
        "verified": 6, "wrong": 1,
    }  # fmt: skip
    assert len(trace_rows.read(directory / "rows.jsonl")) == 10


def test_without_enough_agreement_nothing_is_verified(questions: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "answers.jsonl", [r for r in TEXTS if r.get("id") == "o/0"])
    s = SynthesisSettings(writer="file", questions=str(questions), answers=path, agree=4)
    with pytest.raises(DataError, match="none of 5 answers is verified .unverified 5"):
        run(tmp_path / "run", s, task="text")
    assert read(tmp_path / "run" / "synthesis" / "rows.jsonl")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "x", "text": "a"}], "none of 1 rows is of the 6 problems"),
        ([{"text": "a"}], "line 1: columns text; wanted: id or question"),
        ([{"id": "g/0"}], "text, response is None; wanted: a text"),
        ([{"id": "g/0", "text": 3}], "text, response is 3"),
    ],
)
def test_files_that_cannot_be_read(
    questions: Path, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    path = write_rows(tmp_path / "answers.jsonl", rows)
    s = SynthesisSettings(writer="file", questions=str(questions), answers=path)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "run", s, task="text")


def test_texts_have_no_assertions(questions: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "answers.jsonl", TEXTS)
    s = SynthesisSettings(writer="file", questions=str(questions), answers=path, assertions=True)
    with pytest.raises(ConfigError, match="synthesis.assertions=True with task=text"):
        run(tmp_path / "run", s, task="text")


def test_problems_of_a_held_out_split_are_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = plan({"synthesis": SynthesisSettings()})
    held_out = Run(config, tmp_path / "other").data.problems("test").problems[0]
    rows = [{"question": held_out.question, "answer": "1"}, {"question": "What is 1 plus 1?"}]
    questions = write_rows(tmp_path / "q.jsonl", rows)
    answers = [{"id": f"q/{i}", "text": f"{i}{j}\n#### 1"} for i in range(2) for j in range(3)]
    path = write_rows(tmp_path / "answers.jsonl", answers)
    s = SynthesisSettings(writer="file", questions=questions, answers=path)
    directory = run(tmp_path / "run", s, task="text")
    assert {row["id"] for row in verified(directory)} == {"q/1"}
    assert "1 of 2 problems of " in capsys.readouterr().err
    write_rows(tmp_path / "q.jsonl", rows[:1])
    with pytest.raises(DataError, match="no problem is left"):
        run(tmp_path / "none", s, task="text")


def test_problems_of_a_file(tmp_path: Path) -> None:
    path = Path(write_rows(tmp_path / "q.jsonl", [{"question": "a?"}, {"question": "b?", "id": 7}]))
    assert [(p.id, p.answer) for p in synthesis.read_questions(path)] == [("q/0", ""), ("7", "")]
    write_rows(path, [{"question": "a?", "id": "x"}, {"question": "b?", "id": "x"}])
    with pytest.raises(DataError, match="line 2: id x a second time"):
        synthesis.read_questions(path)


def test_the_teacher_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = files(tmp_path / "models")
    gold = {p.question: p.answer for p in problems_of(made, tmp_path)}

    def replies(prompt: str) -> list[str]:
        (answer,) = [a for q, a in gold.items() if q in prompt]
        return [f"#### {answer}", f"so\n#### {answer}{CUT}", "#### 12345", f"a\n#### {answer}"]

    fake = scripted(monkeypatch, replies)
    whole = fake.encode
    # As a model may write: other tokens than the text is cut into.
    fake.encode = lambda text: [index for sign in text for index in whole(sign)]  # type: ignore[method-assign]
    fake.fail_at = 1
    s = SynthesisSettings(problems=4, batch=8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", s, task="text", **made)
    directory = run(tmp_path / "run", s, task="text", **made)
    assert fake.calls == [2, 2]  # the first two problems were not drawn again
    found, rows = trace_rows.read(directory / "rows.jsonl"), verified(directory)
    assert [one.tokens for one in found[:2]] == [
        [*fake.encode(found[0].completion), fake.tok.eos_token_id],
        fake.encode(found[1].completion),
    ]
    assert [row["sample"] for row in rows] == [0, 3] * 4
    assert all(row["source"] == "teacher" and row["evidence"] == "gold" for row in rows)
    figures = json.loads((directory / "done.json").read_text())["figures"]
    assert figures["classes"] == {"length": 4, "verified": 8, "wrong": 4}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"writer": "endpoint"}, "writer=endpoint without endpoint.model"),
        ({"writer": "file"}, "writer=file with answers=''"),
        ({"answers": "a.jsonl"}, "writer=teacher with answers='a.jsonl'"),
        ({"temperature": 0.0}, "samples=4 with temperature=0"),
        ({"temperature": None}, "writer=teacher without a temperature"),
    ],
)
def test_settings_that_cannot_go_together(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynthesisSettings(**how)


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({}, {"endpoint.model", "endpoint.pace.concurrency"}),
        ({"writer": "endpoint"}, {"batch"}),
        ({"writer": "file", "answers": "a.jsonl"}, {
            "batch", "samples", "temperature", "endpoint.model", "endpoint.pace.concurrency",
        }),
    ],
)  # fmt: skip
def test_settings_that_another_writer_reads(how: dict[str, Any], names: set[str]) -> None:
    endpoint = EndpointSettings(model="big", pace=PaceSettings(concurrency=3))
    s = SynthesisSettings(samples=2, temperature=0.5, batch=8, endpoint=endpoint, **how)
    assert {one.name for one in unread.find(s)} == names
