"""Answers as JSONL: the rows, every kind of model, kill and resume to the same bytes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DataError,
    TokenizerMismatchError,
)
from distill_jax.core.files import store_path, write_json
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.evaluation import export as exports
from distill_jax.evaluation import subjects
from distill_jax.evaluation.export import Request
from distill_jax.inference.store import AnswerStore, Batch
from distill_jax.report import view as views
from distill_jax.run import lock
from distill_jax.run.config import to_dict
from distill_jax.run.data import Data
from distill_jax.run.stop import Interrupted
from distill_jax.tasks import Judged
from tests.launch.conftest import Run
from tests.stages.hf import write_model
from tests.stages.small import ROOT, SMALL

pytestmark = pytest.mark.slow

GREEDY = Request("test", top_k=3)


def export(run: Run, out: Path, model: str = "sft", request: Request = GREEDY, **changes: Any):
    opened = run.opened(**changes)
    exports.export(opened, subjects.named(opened, model), request, out)
    return read(out)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def whole(random_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "whole.jsonl"
    export(random_run, out)
    return out


def test_a_second_export_to_one_file_is_refused(random_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with lock.held(out), pytest.raises(BusyError, match=f"{out} is in use"):
        export(random_run, out)
    assert list(tmp_path.iterdir()) == []


def test_a_row_a_problem_in_their_order(whole: Path, random_run: Run) -> None:
    rows, problems = read(whole), random_run.opened().data.separate("test")
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["id"] for row in rows] == [p.id for p in problems]
    assert [row["question"] for row in rows] == [p.question for p in problems]
    assert [row["ground_truth"] for row in rows] == [p.solution for p in problems]
    assert [row["ground_truth_text"] for row in rows] == [p.answer for p in problems]
    assert [row["ground_truth_num"] for row in rows] == [int(p.answer) for p in problems]


def test_a_problem_that_cannot_be_put_is_a_row_with_its_error(whole: Path) -> None:
    rows = read(whole)
    assert "prompt of " in rows[2]["error"] and "data.max_prompt_tokens=64" in rows[2]["error"]
    assert "special token <|im_end|>" in rows[4]["error"]
    for i, row in enumerate(rows):
        assert (row["error"] is None) == (i not in (2, 4)) == (row["response"] is not None)
    assert rows[2]["prompt"].startswith("<|im_start|>user\nAnd more.") and rows[4]["prompt"] is None


def test_answers_are_those_of_the_model(whole: Path, random_run: Run) -> None:
    opened = random_run.opened()
    loaded = subjects.named(opened, "sft").load()
    hidden_of = jax.jit(loaded.model.hidden)
    head = np.asarray(loaded.model.head_VD(loaded.params), np.float64)[: opened.data.vocab]
    for row in read(whole):
        if row["error"]:
            continue
        prompt = opened.data.tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        ids = row["response_ids"]
        padded = np.zeros((1, 80), np.int32)
        padded[0, : len(prompt + ids)] = prompt + ids
        hidden = np.asarray(hidden_of(loaded.params, padded)[0], np.float64)
        for t, token in enumerate(ids):
            logits = hidden[len(prompt) + t - 1] @ head.T
            p = np.exp(logits - logits.max())
            assert (
                row["top_ids"][t] == np.argsort(-p)[:3].tolist() and row["top_ids"][t][0] == token
            )
            np.testing.assert_allclose(row["top_probs"][t], np.sort(p / p.sum())[:-4:-1], rtol=1e-4)
        assert row["response"] == opened.data.text(ids)
        assert row["ended"] == (ids[-1] == opened.data.eos_id) and 1 <= len(ids) <= 6


def test_models_differ_and_top_tokens_can_be_left_out(
    whole: Path, random_run: Run, tmp_path: Path
) -> None:
    request = GREEDY._replace(top_k=0)
    found = {"sft": read(whole)}
    for name in ("base", "teacher"):
        found[name] = export(random_run, tmp_path / f"{name}.jsonl", name, request)
        assert found[name][0]["top_ids"] is None and found[name][0]["response_ids"]
    said = {str([row["response_ids"] for row in rows]) for rows in found.values()}
    assert len(said) == 3
    # The same models by their directories.
    for name, directory in (
        ("sft", str(random_run.workdir / "sft")),
        ("teacher", random_run.settings["teacher__path"]),
    ):
        by_path = export(random_run, tmp_path / f"{name}_path.jsonl", directory, request)
        ids = [row["response_ids"] for row in by_path]
        assert ids == [row["response_ids"] for row in found[name]]


class Stop(Exception):
    """Stands for whatever ends the program."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The problems of each batch that is drawn from now on."""
    batches, add = [], AnswerStore.add

    def noted(self: AnswerStore, batch: Batch) -> None:
        batches.append(batch.problems)
        add(self, batch)

    monkeypatch.setattr(AnswerStore, "add", noted)
    return batches


def test_killed_at_any_byte_it_ends_with_the_same_bytes(
    whole: Path, random_run: Run, tmp_path: Path, drawn: list[tuple[int, ...]]
) -> None:
    out = tmp_path / "cut.jsonl"
    held = store_path(whole).read_bytes()
    first, second, third = (i + 1 for i, byte in enumerate(held) if byte == ord("\n"))
    assert third == len(held)  # what it was made from, and two batches
    for size, missing in ((0, 2), (first - 1, 2), (first, 2), (second - 1, 2), (second, 1),
                          (second + 1, 1), (third - 1, 1), (third, 0)):  # fmt: skip
        out.unlink(missing_ok=True)
        store_path(out).write_bytes(held[:size])
        drawn.clear()
        export(random_run, out)
        assert len(drawn) == missing and out.read_bytes() == whole.read_bytes(), size
        assert store_path(out).read_bytes() == held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.jsonl", "cut.jsonl.store"]


def test_stopped_between_batches_nothing_is_drawn_twice(
    whole: Path, random_run: Run, tmp_path: Path, drawn: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "a.jsonl"
    opened = random_run.opened()
    opened.stop.asked = True
    with pytest.raises(Interrupted, match="answers of sft: asked to stop; 2 of 4 answers are kept"):
        exports.export(opened, subjects.named(opened, "sft"), GREEDY, out)
    assert not out.exists() and len(drawn) == 1

    def stop(*_: Any) -> Any:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(exports, "row", stop)  # all are drawn, none is rendered
        with pytest.raises(Stop):
            export(random_run, out)
    assert not out.exists() and sorted(i for batch in drawn for i in batch) == [0, 1, 3, 5]
    export(random_run, out)
    assert len(drawn) == 2 and out.read_bytes() == whole.read_bytes()
    before = out.stat().st_mtime_ns
    export(random_run, out)  # complete: left alone
    assert len(drawn) == 2 and out.stat().st_mtime_ns == before


def test_a_prompt_without_room_for_the_answer_is_a_row_with_its_error(
    random_run: Run, tmp_path: Path
) -> None:
    rows = export(random_run, tmp_path / "a.jsonl", "base", sampling__max_new_tokens=90)
    tokenizer = random_run.opened().data.tokenizer
    for row in (rows[i] for i in (0, 1, 3, 5)):
        need = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]) + 90
        error = f"prompt and answer take {need} positions, the model has 128"
        assert row["error"] == (error if need > 128 else None)
        assert (row["response"] is None) == (need > 128)
    assert 2 < sum(row["error"] is not None for row in rows) < len(rows)


def test_any_text_is_a_line_of_ascii(
    random_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "antwoord é \u2028 \ud800"
    monkeypatch.setattr(Data, "text", lambda self, tokens: text)
    rows = export(random_run, tmp_path / "a.jsonl")
    assert [row["response"] for row in rows if row["error"] is None] == [text] * 4
    assert (tmp_path / "a.jsonl").read_bytes().isascii()


def test_what_cannot_be_decided_is_not_right(
    random_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(problems: Any, texts: Any, ended_B: Any) -> Judged:
        assert [problem.id for problem in problems] == [ids[i] for i in (0, 1, 3, 5)]
        right_B = np.array([True, False, False, False])
        return Judged(right_B, np.array([False, True, False, False]), [{}] * 4, [None] * 4)

    opened = random_run.opened()
    ids = [problem.id for problem in opened.data.separate("test")]
    monkeypatch.setattr(opened.data.task, "judge", judge)
    exports.export(opened, subjects.named(opened, "sft"), GREEDY, tmp_path / "a.jsonl")
    rows = [row for row in read(tmp_path / "a.jsonl") if row["error"] is None]
    assert [row["verdict"] for row in rows] == ["right", "undecided", "wrong", "wrong"]
    assert [row["right"] for row in rows] == [True, False, False, False]


def test_a_file_of_other_settings_is_refused(whole: Path, random_run: Run) -> None:
    before = whole.read_bytes()
    for request, changes, message in (
        (GREEDY._replace(temperature=0.5), {}, "sampling was "),
        (GREEDY._replace(top_k=2), {}, "top_k was 3, now 2"),
        (GREEDY._replace(limit=4), {}, "rows was 6, now 4"),
        (GREEDY, {"sampling__max_new_tokens": 5}, "sampling was "),
    ):
        with pytest.raises(DataError, match=message):
            export(random_run, whole, "sft", request, **changes)
    with pytest.raises(DataError, match="weights was"):
        export(random_run, whole, "base")
    assert whole.read_bytes() == before


def test_samples_are_drawn_alike_whatever_the_limit(random_run: Run, tmp_path: Path) -> None:
    request = Request("validation", top_k=0, temperature=1.0)
    four = export(random_run, tmp_path / "4.jsonl", "base", request)
    two = export(random_run, tmp_path / "2.jsonl", "base", request._replace(limit=2))
    ids = [row["response_ids"] for row in four]
    assert [row["response_ids"] for row in two] == ids[:2] and len({str(i) for i in ids}) == 4
    greedy = request._replace(temperature=0.0)
    assert ids != [r["response_ids"] for r in export(random_run, tmp_path / "g", "base", greedy)]


def test_impossible_requests(random_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(ConfigError, match="top_k=301; wanted: at most 300"):
        export(random_run, out, "base", GREEDY._replace(top_k=301))
    with pytest.raises(ConfigError, match="max_new_tokens=128; wanted: less than the model's 128"):
        export(random_run, out, "base", sampling__max_new_tokens=128)
    with pytest.raises(DataError, match="no problem can be put to the model, first: prompt of"):
        export(random_run, out, "base", data__max_prompt_tokens=3)
    assert not out.exists()
    with pytest.raises(DataError, match="is a directory"):
        export(random_run, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        export(random_run, tmp_path / "file" / "a.jsonl")


def test_choice_of_models(random_run: Run, tmp_path: Path) -> None:
    opened, view = random_run.opened(), views.load(random_run.workdir)
    for alias in ("student", "student_after", "sft"):  # no stage rl here
        assert views.canonical(alias, view) == "sft"
    with pytest.raises(CheckpointError, match="run stage rl first: the same command with"):
        subjects.named(opened, "rl")
    with pytest.raises(CheckpointError, match="config.json"):
        subjects.named(opened, str(tmp_path))
    with pytest.raises(CheckpointError, match="no directory studnet"):
        subjects.named(opened, "studnet")
    other = train_tokenizer(["quite other words " * 50], 300)
    odd = write_model(tmp_path / "odd", rows=320, tok=other)
    with pytest.raises(TokenizerMismatchError, match="a tokenizer other than the run's"):
        export(random_run, tmp_path / "odd.jsonl", str(odd))
    assert not (tmp_path / "odd.jsonl").exists()


# --- the command ---------------------------------------------------------------------------------

# Calls of the command, each in a fork of one process that has imported what it needs. One with
# KILLED among its arguments ends itself, as a kill from outside would, with half a batch behind a
# whole one.
MANY = """
import gc, json, os, runpy, signal, sys
gc.disable()
from launch import main
from distill_jax.evaluation import export
from distill_jax.run import run
from transformers import PreTrainedTokenizerFast
from distill_jax.inference.store import AnswerStore
add = AnswerStore.add
def killed(self, batch):
    add(self, batch)
    with self.path.open('ab') as file:
        file.write(b'{"decoding":"greedy","prob')
    os.kill(os.getpid(), signal.SIGKILL)
calls = json.load(sys.stdin)
gc.freeze()  # a fork would copy every page that the collector of garbage looks at
gc.enable()
for argv in calls:
    child = os.fork()
    if not child:
        if "KILLED" in argv:
            argv.remove("KILLED")
            AnswerStore.add = killed
        sys.argv = ["export_answers", *argv]
        code = 1
        try:
            runpy.run_module("launch.export_answers", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush()
        os._exit(code or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for stream in (sys.stdout, sys.stderr):
        print(f"--- {code}", file=stream, flush=True)
"""


def command(run: Run, *arguments: str) -> list[str]:
    settings = {**{k.replace("__", "."): v for k, v in run.settings.items()}}
    settings = {**SMALL, **settings, "stages": "('sft','rl','evaluate')"}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return ["--config=configs/rl.py:smoke", f"--workdir={run.workdir}", *flags, *arguments]


def called(calls: list[list[str]]) -> tuple[list[int], list[str], list[str]]:
    """The exit code, standard output and standard error of each call."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    codes = [int(code) for code in re.findall("^--- (.*)$", done.stdout, re.MULTILINE)]
    assert len(codes) == len(calls), done.stderr
    out, err = (re.split("^--- .*\n", x, flags=re.MULTILINE) for x in (done.stdout, done.stderr))
    return codes, out[:-1], err[:-1]


def test_as_a_command(whole: Path, random_run: Run, tmp_path: Path) -> None:
    """Killed and called again; wrong input; help."""
    out = tmp_path / "a.jsonl"
    killed = command(random_run, "--model=sft", "--top_k=3", f"--out={out}")
    # The work directory's own config serves as well, with overrides behind it.
    again = [killed[1], "--config.records.completions=16", *killed[-3:]]
    new = ["--config=configs/rl.py:smoke", f"--workdir={tmp_path / 'new'}"]
    wrong = [
        (
            ["--model=/nowhere"],
            "ConfigError: --model=/nowhere without --out; wanted: one of teacher, base, sft",
        ),
        (["--split=tset"], "value should be one of <test|train|validation>"),
        (["--limit=0"], "--limit=0"),
        (["--temperature=-1"], "--temperature=-1"),
        (["more"], "ConfigError: stray argument 'more'"),
        (["--model=rl", "--out=a.jsonl"], "CheckpointError: no student in "),
    ]
    messages = [message for _, message in wrong] + ["run stage pretrain first: the same command"]
    refused = [command(random_run, *arguments) for arguments, _ in wrong] + [new]
    saved = random_run.workdir / "config.json"
    write_json(saved, to_dict(random_run.opened(records__completions=3).config))
    codes, shown, said = called([[*killed, "KILLED"], again, *refused, ["--help"]])
    saved.unlink()
    assert codes == [-signal.SIGKILL, 0, *[2] * len(refused), 1], said
    assert "going on after 2 of 4 answers" in said[1]
    assert out.read_bytes() == whole.read_bytes()
    assert "0 of 4 (0.0%)" in said[1] and "errors" in said[1]
    for text, message in zip(said[2:-1], messages, strict=True):
        assert message in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    assert "python -m launch.export_answers --workdir=" in shown[-1]
    for flag in ("--model", "--split", "--limit", "--top_k", "--temperature", "--workdir"):
        assert flag in shown[-1]
