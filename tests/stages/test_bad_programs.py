"""Bad programs and files on the way from answers to students: a clear class or error, nothing lost.

An endpoint without a key, one with a wrong model, its full disk: test_synthesis.py and
tests/launch/test_synthesise.py. Verified files of another split or without gold: test_sft_rows.py.
"""

import dataclasses
import errno
import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core import disk, files
from distill_jax.core.errors import DataError
from distill_jax.data.fences import fenced
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.stages.executed import ExecutedSettings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.tasks import ProgramSettings
from tests.stages.synthesised import GOLD, LONG, run, verified, write_rows
from tests.stages.traced import plan, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]

# What is wrong with the answer to g/0, whose gold answer is 1545, and the class that it gets.
ANSWERS = [
    ("```python\nprint(1200 + 345)", "no_program:unterminated"),
    (fenced("a = 1200 + 345"), "sandbox:no_output"),
    (fenced("print('')"), "sandbox:no_output"),
    # Of two fences the last one counts, whatever the first one prints.
    (fenced("print(1200 + 345)") + "\nNo:\n" + fenced("print(1200 - 345)"), "wrong"),
    (fenced("print(1200 - 345)") + "\nNo:\n" + fenced("print(1200 + 345)"), "verified"),
    # Half of a pair of surrogates cannot be printed as UTF-8; what comes out is no answer.
    (fenced("print('\\udcff', 1200 + 345)"), "undecided"),
    (fenced("print(b'\\xff\\xfe', 1200 + 345)"), "undecided"),
    (fenced("print('\\ufffd')\nprint(1200 + 345)"), "verified"),
    ("", "empty"),
]


def questions(root: Path) -> str:
    name, text, gold = GOLD[0]
    return write_rows(root / "questions.jsonl", [{"id": name, "question": text, "answer": gold}])


def settings(root: Path) -> SynthesisSettings:
    answers = [{"id": "g/0", "text": text} for text, _ in ANSWERS]
    path = write_rows(root / "answers.jsonl", answers)
    return SynthesisSettings(writer="file", questions=questions(root), answers=path, per_problem=9)


def test_each_bad_answer_has_its_class_and_its_row(tmp_path: Path) -> None:
    directory = run(tmp_path / "run", settings(tmp_path))
    rows = {row["sample"]: row for row in read(directory / "rows.jsonl")}
    assert {n: row["class"] for n, row in rows.items()} == {
        n: kind for n, (text, kind) in enumerate(ANSWERS) if text
    }
    assert all(row["completion"] == ANSWERS[n][0] for n, row in rows.items())
    assert [row["sample"] for row in verified(directory)] == [
        n for n, (_, kind) in enumerate(ANSWERS) if kind == "verified"
    ]
    figures = json.loads((directory / "done.json").read_text())["figures"]
    assert sum(figures["classes"].values()) == len(ANSWERS)


@pytest.mark.parametrize("file", ["rows.jsonl", "teacher_verified.jsonl"])
def test_a_full_disk_while_answers_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    s, whole = settings(tmp_path), files.whole

    @contextmanager
    def full(path: Path) -> Any:
        with whole(path) as partial:
            yield partial
            if path.name == file:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "whole", full)
        with pytest.raises(OSError) as error:
            run(tmp_path / "run", s)
    found = disk.full(error.value, tmp_path)
    assert found is not None and "the same command goes on" in str(found)
    left = tmp_path / "run" / "synthesis"
    assert not (left / file).exists() and not list(left.glob("*.partial"))
    assert not (left / "done.json").exists()
    assert verified(run(tmp_path / "run", s)) == verified(run(tmp_path / "other", s))


# --- files of other runs --------------------------------------------------------------------------


def of_another_tokenizer(root: Path) -> dict[str, Any]:
    text = fenced("print(1200 + 345)")
    other = train_tokenizer([text] * 9, 300)
    row = {
        "id": "g/0", "question": GOLD[0][1], "answer": "1545", "completion": text,
        "tokens": other.encode(text, add_special_tokens=False), "ended": True, "right": True,
        "undecided": False, "sample": 0, "score": None,
    }  # fmt: skip
    path = write_rows(root / "rows.jsonl", [row])
    return {"stage": ExecutedSettings(data=path)}


def not_utf_8(root: Path) -> dict[str, Any]:
    path = root / "answers.jsonl"
    path.write_bytes(b'{"id": "g/0", "text": "\xff\xfe"}\n')
    made = SynthesisSettings(writer="file", questions=questions(root), answers=str(path))
    return {"stage": made}


def torn(root: Path) -> dict[str, Any]:
    s = settings(root)
    Path(s.answers).write_bytes(Path(s.answers).read_bytes()[:-9])
    return {"stage": s}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (of_another_tokenizer, "tokens of g/0 do not read as its completion.*rows of the run's"),
        (not_utf_8, "answers.jsonl"),
        (torn, "answers.jsonl.*line 9"),
    ],
)
def test_files_that_do_not_fit_the_run(
    tmp_path: Path, made: Callable[[Path], dict[str, Any]], message: str
) -> None:
    stages = made(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    config = plan(stages, **{**LONG, "task": "program", "data__problems__style": "program"})
    config = dataclasses.replace(config, programs=ProgramSettings(instruction=""))
    with pytest.raises(DataError, match=f"(?s){message}"):
        runner.run(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("stage/done.json"))
    assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_problems_without_gold_are_for_synthesis_alone(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    for split in ("train", "test"):
        write_rows(source / f"{split}.jsonl", [{"question": f"A question of {split}?"}] * 3)
    models = {"teacher__path": "no/teacher", "student__path": "no/student"}  # none is read
    config = plan({"synthesis": SynthesisSettings()}, data__source=str(source), **models)
    with pytest.raises(DataError, match="no gold answer in answer or solution"):
        Run(config, tmp_path / "run").data.separate("train")
