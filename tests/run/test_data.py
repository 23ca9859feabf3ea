"""The data of a run: its tokenizer, benchmarks, questions that no training may show."""

import json
from pathlib import Path

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run import run as runs
from tests.stages.small import small


def test_another_tokenizer_is_not_written_over_that_of_a_run(tmp_path: Path) -> None:
    assert len(runs.Run(small(), tmp_path).data.tokenizer) == 300
    stage = tmp_path / "sft" / "settings.json"
    held = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    stage.parent.mkdir()
    stage.write_text("{}")
    with pytest.raises(ConfigError, match=r"was made from .*'size': 300.*, now from .*280"):
        _ = runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == held
    stage.unlink()  # nothing was made with it: it may go
    assert len(runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer) == 280


def test_a_tokenizer_made_before_a_setting_was_added_stays(tmp_path: Path) -> None:
    _ = runs.Run(small(), tmp_path).data.tokenizer
    note = tmp_path / "tokenizer" / "made_from.json"
    found = json.loads(note.read_text())
    del found["problems"]["flawed"]
    note.write_text(json.dumps(found))
    stage = tmp_path / "sft" / "settings.json"
    stage.parent.mkdir()
    stage.write_text("{}")
    assert len(runs.Run(small(), tmp_path).data.tokenizer) == 300
    with pytest.raises(ConfigError, match="was made from"):
        _ = runs.Run(small(data__problems__flawed=0.5), tmp_path).data.tokenizer


def test_a_benchmark_loses_what_the_students_have_seen(tmp_path: Path) -> None:
    data = runs.Run(small(), tmp_path).data
    seen = data.separate("train")[0].question.upper()  # the same question in other letters
    path = tmp_path / "contest.jsonl"
    rows = [{"question": q, "answer": "025"} for q in (seen, "What is 5 times 5?")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    data.say = said.append  # type: ignore[method-assign]
    assert [p.question for p in data.problems(str(path)).problems] == ["What is 5 times 5?"]
    assert said == [f"{path}: 1 of 2 problems dropped, they are in train"]
    assert data.in_train == {str(path): 1} and data.source_of(str(path)) == str(path)
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="all 1 problems of .* are in train"):
        runs.Run(small(), tmp_path).data.problems(str(path))


def test_questions_of_validation_and_test_are_held_out(tmp_path: Path) -> None:
    data = runs.Run(small(), tmp_path).data
    for split, held_out in (("train", False), ("validation", True), ("test", True)):
        question = data.separate(split)[0].question
        assert data.in_held_out_split(f"  {question.lower()} ") is held_out
