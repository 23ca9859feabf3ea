"""Tokens of the report: against logits of whole sequences, one row at a time."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.report import plots, run_data
from distill_jax.report.view import load
from distill_jax.run.run import Run
from distill_jax.stages import token_scores
from tests.stages.small import copy_stages, small
from tests.tiny import hidden, log_softmax

pytestmark = pytest.mark.slow

NAMES = ["sft", "rl", "teacher"]
PARTS = ("pretrain", "sft", "rl", "evaluate", "report")


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the time, and are looked at elsewhere."""
    monkeypatch.setattr(plots, "curves", lambda stage, panels, rows: [])


def write(run: Run, problems: int | None = None) -> None:
    token_scores.write_report(run, run.stage("evaluate"), problems)


def tokens_of(workdir: Path) -> dict[str, Any]:
    found = run_data.read_tokens(workdir)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def logits(finished: Path):
    """(model's name, problem's id, response) -> float64 logits [R, V] before each of its tokens."""
    context = Run(small(), finished)
    data = context.data.problems("test")
    prompts = {p.id: prompt for p, prompt in zip(data.problems, data.prompts, strict=True)}
    models = {
        name: context.models.load("teacher") if name == "teacher" else context.load_student(name)
        for name in NAMES
    }

    def of(name: str, problem: str, response: list[int]) -> np.ndarray:
        model, params = models[name].model, models[name].params
        prompt = prompts[problem]
        # Padding at the right is hidden by causality; one shape is compiled once.
        row, end = np.zeros((1, 96), np.int32), len(prompt) + len(response)
        row[0, :end] = prompt + response
        params = jax.device_get(params)
        states = np.asarray(hidden(model, params, row), np.float64)[0]
        head = np.asarray(model.head_VD(params), np.float64)[: context.data.vocab]
        # The logits after the prompt's last token are those of the response's first.
        return states[len(prompt) - 1 : end - 1] @ head.T

    return of


def test_the_tokens_are_those_of_the_evaluation(finished: Path) -> None:
    found = tokens_of(finished)
    evaluated = run_data.read_results(finished, load(finished))
    context = Run(small(), finished)
    assert found["made_from"] == {
        "subjects": {name: evaluated[name]["made_from"] for name in NAMES},
        "problems": [p["id"] for p in found["problems"]],
        "alpha": 1.0,
    }
    assert len(found["problems"]) == 4  # all that there are
    for problem in found["problems"]:
        assert list(problem["responses"]) == NAMES
        for name, response in problem["responses"].items():
            results = evaluated[name]["problems"]
            (result,) = [p for p in results if p["id"] == problem["id"]]
            ids = [token["id"] for token in response["tokens"]]
            assert response["text"] == result["greedy"] == context.data.text(ids)
            assert 0 < len(ids) <= 24
            assert (response["verdict"] == "right") == result["greedy_right"]
            assert response["ended"] == (ids[-1] == context.data.eos_id)
            assert context.data.eos_id not in ids[:-1]


@pytest.mark.parametrize("name", NAMES)
def test_figures_against_whole_rows(finished: Path, logits: Any, name: str) -> None:
    """The teacher's q, value and reward of each token, the writer's log-probability and choice."""
    for problem in tokens_of(finished)["problems"][:2]:
        tokens = problem["responses"][name]["tokens"]
        ids = [token["id"] for token in tokens]
        at = np.arange(len(ids)), ids
        teacher = logits("teacher", problem["id"], ids)
        columns = {key: [token[key] for token in tokens] for key in tokens[0] if key in {
            "reward", "q", "value", "logp",
        }}  # fmt: skip
        reward = log_softmax(teacher)[at]
        np.testing.assert_allclose(columns["reward"], reward, atol=1e-4)
        np.testing.assert_allclose(columns["q"], teacher[at], atol=1e-4)
        np.testing.assert_allclose(columns["value"], teacher[at] - reward, atol=1e-4)
        writer = logits(name, problem["id"], ids)
        np.testing.assert_allclose(columns["logp"], log_softmax(writer)[at], atol=1e-4)
        best = writer.max(axis=1)
        np.testing.assert_allclose(writer[at], best, atol=1e-4)  # greedy


def test_scores_are_kept_and_made_again_alike(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *PARTS)
    file = run_data.tokens_file(workdir)
    whole = file.read_bytes()
    context = Run(small(), workdir)
    file.unlink()
    write(context)
    assert file.read_bytes() == whole and (workdir / "report.html").stat().st_size > 50_000
    monkeypatch.setattr(token_scores, "_score", lambda *_: pytest.fail("scored already"))
    (workdir / "report.html").unlink()
    write(context)
    assert (workdir / "report.html").exists()
    token_scores.write_report(
        context, context.stage("evaluate"), 0
    )  # none asked for: what is there is shown
    assert file.read_bytes() == whole


def test_fewer_problems_in_more_batches(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *PARTS)
    before = {p["id"]: p for p in tokens_of(workdir)["problems"]}
    monkeypatch.setattr(token_scores, "_SCORED", 1)  # one batch of as many rows as devices
    write(Run(small(), workdir), 3)
    found = tokens_of(workdir)["problems"]
    assert len(found) == 3
    for problem in found:
        for name, response in problem["responses"].items():
            wanted = before[problem["id"]]["responses"][name]
            assert response["text"] == wanted["text"]
            got = [token["reward"] for token in response["tokens"]]
            np.testing.assert_allclose(got, [t["reward"] for t in wanted["tokens"]], atol=1e-4)


def test_other_weights_and_other_problems_are_refused(finished: Path, tmp_path: Path) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *PARTS)
    run_data.tokens_file(workdir).unlink()
    for name in NAMES:
        path = workdir / "evaluate" / f"{name}.json"
        told = json.loads(path.read_text())
        told["problems"][0]["id"] = "elsewhere"
        path.write_text(json.dumps(told))
    with pytest.raises(DataError, match="elsewhere was evaluated and is not in test"):
        write(Run(small(), workdir))
    workdir = copy_stages(finished, tmp_path / "other", *PARTS)
    run_data.tokens_file(workdir).unlink()
    weights = "adapter/adapter_model.safetensors"
    (workdir / "rl" / weights).write_bytes((workdir / "sft" / weights).read_bytes())
    with pytest.raises(CheckpointError, match=r"rl\.json is of other weights"):
        write(Run(small(), workdir))
    (workdir / "evaluate" / "teacher.checkpoint.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"teacher\.checkpoint\.jsonl is missing"):
        write(Run(small(), workdir))


def test_without_a_teacher_or_problems_no_token_is_scored(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(finished, tmp_path / "run", *PARTS)
    run_data.tokens_file(workdir).unlink()
    monkeypatch.setattr(token_scores, "_score", lambda *_: pytest.fail("not asked for"))
    write(Run(small(report__problems=0), workdir))
    (workdir / "evaluate" / "teacher.json").unlink()
    write(Run(small(), workdir))
    assert run_data.read_tokens(workdir) is None
    assert "No tokens were scored" in (workdir / "report.html").read_text(encoding="utf-8")
