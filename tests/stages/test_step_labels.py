"""Stage step_labels: completions by hand become counts in rows; going on after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.stages import runner
from distill_jax.stages.step_labels import STORE_FILE, StepLabelSettings
from tests.stages.traced import CUT, Scripted, files, plan, read, scripted

GOOD = "2 + 3 = 5\n#### 6\nThat is all"
BAD = "2 + 3 = 7\n7 + 1 = 8\n#### 8"
HARD = "1 = 1\n#### 0"
RIGHT, WRONG = "#### 6", "#### 4"
# (problem, gold, solution): two of one problem, one of a problem that nothing solves, one empty.
SOLUTIONS = [("a", "6", GOOD), ("a", "6", BAD), ("b", "2", HARD), ("b", "2", "")]
QUESTIONS = {"a": "How much is 2 + 3 + 1?", "b": "And this?"}
REPLIES = {
    "": [RIGHT, RIGHT + CUT, WRONG, WRONG],  # of both problems
    "2 + 3 = 5\n": [RIGHT, WRONG, RIGHT, "5 + 1 = 6" + CUT],
    "2 + 3 = 5\n#### 6\n": ["That is all"] * 4,  # right by what was written before
    "2 + 3 = 7\n": [WRONG] * 4,
    "1 = 1\n": [WRONG, WRONG, WRONG, RIGHT],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return files(tmp_path_factory.mktemp("models"))


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return scripted(monkeypatch, REPLIES)


def write(path: Path, sampler: Scripted, solutions: Any = SOLUTIONS, **changes: Any) -> Path:
    rows = [
        {
            "id": name, "question": QUESTIONS[name], "answer": gold, "completion": text,
            "tokens": [*sampler.encode(text), sampler.tok.eos_token_id], "ended": True,
            "right": f"#### {gold}" in text, "undecided": False, "sample": number, **changes,
        }
        for number, (name, gold, text) in enumerate(solutions)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(workdir: Path, made: dict[str, Any], data: Path, **changes: Any) -> Any:
    settings = StepLabelSettings(data=str(data), **{"n": 4, "batch": 8, **changes})
    runner.run(plan({"step_labels": settings}, **made), workdir)
    done = workdir / "step_labels" / "done.json"
    return read(workdir / "step_labels" / "rows.jsonl"), json.loads(done.read_text())["figures"]


def counts(right: int, wrong: int, undecided: int = 0) -> dict[str, int]:
    return {"right": right, "wrong": wrong, "undecided": undecided}


def test_rows_have_the_counts_of_the_completions(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler)
    found, figures = run(tmp_path / "run", made, data)
    good, bad, hard = found
    lines = GOOD.split("\n")
    assert good == {
        "id": "a",
        "sample": 0,
        "question": QUESTIONS["a"],
        "steps": lines,
        "step_tokens": [sampler.encode(line) for line in lines],
        # The bare prompt is completed right once, once right but cut, twice wrong.
        "root": counts(1, 2, 1),
        # After EOS nothing is drawn: the solution's own verdict, once.
        "mc": [counts(2, 1, 1), counts(4, 0), counts(1, 0)],
        "trace_right": True,
        "sampled": True,
        "completer": {
            "model": "base", "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 12, "n": 4,
        },
        "source": str(data),
        "step_split": "text",
    }  # fmt: skip
    # Given up at its first step; no completion of b's prompt is right.
    assert (bad["mc"], bad["root"]) == ([counts(0, 4), None, None], counts(1, 2, 1))
    assert (hard["mc"], hard["root"]) == ([counts(0, 4), None], counts(0, 3, 1))
    # Tokens: the completions of two roots, of two prefixes of the first solution, of one each of
    # the others. Labels at 1: three steps of the first; at 0: one of the second; b has none.
    drawn = ["", "", *list(REPLIES)[1:]]
    tokens = [len(sampler.encode(t.removesuffix(CUT))) for one in drawn for t in REPLIES[one]]
    ended = [not t.endswith(CUT) for one in drawn for t in REPLIES[one]]
    assert figures == {
        "rows": 3, "steps": 8, "labelled_steps": 5, "sure_rows": 0, "too_long_steps": 0,
        "empty_rows": 1, "hopeless_roots": 0.5, "hard_balance": 0.75,
        "tokens_per_label": (sum(tokens) + sum(ended)) / 5,
    }  # fmt: skip
    assert "labels of steps" in capfd.readouterr().err


def test_cut_completions_can_count_as_wrong(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler)
    found, _ = run(tmp_path / "run", made, data, truncated_as="wrong")
    assert [row["root"] for row in found] == [counts(1, 3), counts(1, 3), counts(0, 4)]
    assert found[0]["mc"][0] == counts(2, 2)


def test_an_undecided_solution_is_no_wrong_one(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler, SOLUTIONS[:1], right=False, undecided=True)
    (row,), _ = run(tmp_path / "run", made, data)
    assert row["mc"][-1] == counts(0, 0, 1) and row["trace_right"] is False


def test_sure_rows_say_that_nothing_was_drawn(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sampler = scripted(monkeypatch, {**REPLIES, "": [RIGHT] * 4})
    data = write(tmp_path / "rows.jsonl", sampler, SOLUTIONS[:2])
    found, figures = run(tmp_path / "run", made, data, skip_sure=True)
    assert found[0]["mc"] == [counts(4, 0)] * 3 and not found[0]["sampled"]
    assert found[1]["mc"] == [counts(0, 4), None, None] and found[1]["sampled"]
    assert figures["sure_rows"] == 1 and sampler.calls == [1, 1]


def test_killed_at_any_call_it_goes_on_to_the_same_bytes(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler)
    run(tmp_path / "whole", made, data, batch=4)
    names = ("rows.jsonl", STORE_FILE)
    whole = [(tmp_path / "whole" / "step_labels" / name).read_bytes() for name in names]
    calls = list(sampler.calls)
    assert calls == [1] * 6
    # In the roots, in the first wave, in the last.
    for fail_at in (1, 3, 5):
        sampler.calls, sampler.fail_at = [], fail_at
        workdir = tmp_path / f"cut{fail_at}"
        with pytest.raises(KeyboardInterrupt):
            run(workdir, made, data, batch=4)
        assert not (workdir / "step_labels" / "rows.jsonl").exists()
        with (workdir / "step_labels" / STORE_FILE).open("ab") as file:
            file.write(b'{"decoding":"wa')  # killed in the middle of a line
        run(workdir, made, data, batch=4)
        assert sampler.calls == calls
        assert [(workdir / "step_labels" / name).read_bytes() for name in names] == whole
    found, _ = run(tmp_path / "large", made, data, batch=64)
    assert (tmp_path / "large" / "step_labels" / "rows.jsonl").read_bytes() == whole[0]


def test_long_prefixes_and_problems_are_counted_and_not_labelled(
    made: dict[str, Any],
    sampler: Scripted,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler, SOLUTIONS[:1])
    run(tmp_path / "run", made, data)
    lengths = [len(sampler.tok.encode(one, add_special_tokens=False)) for one in sampler.prompts]
    # Room for the first step alone; the second prefix is one token too long.
    found, figures = run(tmp_path / "less", made, data, max_prompt_tokens=lengths[2] - 1)
    assert found[0]["mc"] == [counts(2, 1, 1), None, None] and figures["too_long_steps"] == 2
    # The model has 128 positions, so this leaves as much as lengths[2] - 1 for the prompt.
    few = {**made, "sampling__max_new_tokens": 128 - lengths[2] + 1}
    few["data__max_prompt_tokens"] = lengths[2] - 1
    assert run(tmp_path / "context", few, data)[0][0]["mc"] == found[0]["mc"]
    write(data, sampler, [SOLUTIONS[0], SOLUTIONS[2]])
    short = {**made, "data__max_prompt_tokens": lengths[0] - 1}
    found, figures = run(tmp_path / "dropped", short, data)
    assert (found[0]["mc"], found[0]["root"]) == ([None] * 3, counts(0, 0))
    assert found[1]["mc"][0] == counts(0, 4) and figures["too_long_steps"] == 3
    assert figures["hopeless_roots"] == 1.0  # b's alone: a's prompt was not completed
    assert "1 problems are longer than data.max_prompt_tokens" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completion": "2 + 3"}, "the tokens of a do not read as its completion"),
        ({"tokens": [10**6]}, "the tokens of a do not read as its completion"),
        ({"tokens": [-1]}, "the tokens of a do not read as its completion"),
        ({"tokens": [1, "x"]}, r"rows\.jsonl, line 1: field tokens is \[1, 'x'\]"),
        ({"right": 1}, r"rows\.jsonl, line 1: field right is 1.*a row of stage traces"),
        ({"answer": None}, r"rows\.jsonl, line 1: field answer is None"),
    ],
)
def test_rows_of_another_kind_are_refused_before_a_model_is_loaded(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path, changes: Any, message: str
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler, **changes)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "run", made, data)


def test_problems_are_told_apart_by_id_and_need_steps(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler, [("a", "6", GOOD), ("a", "7", GOOD)])
    with pytest.raises(DataError, match="two problems have the id a"):
        run(tmp_path / "run", made, data)
    write(data, sampler, [("a", "6", "")])
    with pytest.raises(DataError, match="no solution of 1 has a step"):
        run(tmp_path / "other", made, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"separator": ""}, "separator is empty"),
        ({"data": ""}, "data is empty"),
        ({"teacher": True, "model": "sft"}, "model=sft with teacher=True"),
    ],
)
def test_settings_that_cannot_be(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StepLabelSettings(**changes)
