"""Stage sft on a file of solutions and on the rows of stage synthesis."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.stages.supervised import ExampleRows
from distill_jax.stages.synthesis_settings import SynthesisSettings
from tests.stages.small import small
from tests.stages.synthesised import (
    problems_of,
    write_rows,
)
from tests.stages.traced import files, plan

pytestmark = pytest.mark.slow


def test_sft_after_synthesis_in_one_plan(tmp_path: Path) -> None:
    made = files(tmp_path / "models")
    found = problems_of(made, tmp_path)
    answers = [
        {"id": p.id, "text": f"#### {p.answer if i % 2 else 999}"} for i, p in enumerate(found)
    ]
    path = write_rows(tmp_path / "answers.jsonl", answers)
    stages = {
        "synthesis": SynthesisSettings(writer="file", answers=path),
        "sft": dataclasses.replace(small().plan["sft"], data="synthesis", batch_size=4),
    }
    runner.run(plan(stages, **made), tmp_path / "run")
    done = json.loads((tmp_path / "run" / "sft" / "done.json").read_text())
    assert "data (rows.jsonl of synthesis)" in done["inputs"]
    with pytest.raises(ConfigError, match="changed since .*data .rows.jsonl of synthesis."):
        (tmp_path / "run" / "synthesis" / "rows.jsonl").write_text("{}")
        runner.run(plan(stages, **made), tmp_path / "run")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "a?", "answer": "1", "completion": "#### 2", "right": False}],
            "no solution",
        ),
        ([{"question": "a?", "completion": "words"}], "no gold answer in answer or solution"),
    ],
)
def test_solutions_that_sft_cannot_take(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    path = Path(write_rows(tmp_path / "rows.jsonl", rows))
    ours = Run(plan({"sft": small().plan["sft"]}), tmp_path)
    with pytest.raises(DataError, match=message):
        ExampleRows(ours, answer_only=0.0, seed=0, path=path)


def test_sft_takes_no_held_out_question(tmp_path: Path) -> None:
    ours = Run(plan({"sft": small().plan["sft"]}), tmp_path)
    row = {"question": ours.data.problems("test").problems[0].question, "answer": "1"}
    path = Path(write_rows(tmp_path / "rows.jsonl", [row | {"completion": "#### 1"}]))
    with pytest.raises(DataError, match="no solution is left"):
        ExampleRows(ours, answer_only=0.0, seed=0, path=path)


def test_wrong_rows_are_learnt_on_as_a_control_alone(tmp_path: Path) -> None:
    ours = Run(plan({"sft": small().plan["sft"]}), tmp_path)
    given = [
        {"question": "a?", "answer": "1", "completion": "#### 1", "right": True},
        {"question": "b?", "answer": "1", "completion": "#### 2", "right": False},
        {"question": "c?", "answer": "1", "completion": "#### 3", "right": True, "kept": False},
    ]
    path = Path(write_rows(tmp_path / "rows.jsonl", given))

    def questions(only_right: bool) -> list[str]:
        rows = ExampleRows(ours, answer_only=0.0, seed=0, path=path, only_right=only_right)
        return [one.question for one in rows.problems]

    assert questions(True) == ["a?"]
    assert questions(False) == ["a?", "b?", "c?"]
