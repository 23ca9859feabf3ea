"""Rows with labelled steps: each published form, and what is refused."""

import json

import pytest

from distill_jax.core.errors import DataError
from distill_jax.data import step_rows


def read(tmp_path, *rows, neutral="positive", derive=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return step_rows.read(
        path, neutral=neutral, derive=derive or (lambda mc, root: [1.0] * len(mc))
    )


def test_stepwise_rows_of_trl(tmp_path):
    row = {
        "prompt": "q",
        "completions": ["a"] * 7,
        "labels": [True, 0, 1.0, 0.9, None, -100, False],
    }
    (got,) = read(tmp_path, row)
    # a soft label stays soft, and -100 is no label: int(0.9) and bool(-100) are known traps
    assert got.labels == [1.0, 0.0, 1.0, 0.9, None, None, 0.0]
    assert (got.question, got.steps, got.tokens) == ("q", ["a"] * 7, None)


# A problem of three steps: the second has two completions, the third ends the trace (phase 2).
PRM800K = {
    "question": {"problem": "1+1?", "ground_truth_answer": "2"},
    "label": {
        "finish_reason": "found_error",
        "steps": [
            {
                "completions": [{"text": "a", "rating": 1, "flagged": False}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "b", "rating": 0}, {"text": "c", "rating": -1}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "d", "rating": -1}, {"text": "e", "rating": None}],
                "human_completion": None,
                "chosen_completion": None,
            },
        ],
    },
}


@pytest.mark.parametrize(
    ("neutral", "label"), [("positive", 1.0), ("negative", 0.0), ("ignore", None)]
)
def test_prm800k(tmp_path, neutral, label):
    got = read(tmp_path, PRM800K, neutral=neutral)
    # Every rating counts once; after a wrong step that was chosen none does.
    wanted = [(["a", "b"], [1.0, label]), (["a", "c"], [None, 0.0])]
    if neutral != "negative":
        wanted += [(["a", "b", "d"], [None, None, 0.0]), (["a", "b", "e"], [None] * 3)]
    assert [(row.steps, row.labels) for row in got] == wanted
    assert {row.question for row in got} == {"1+1?"}


def test_a_persons_step_of_prm800k_is_right(tmp_path):
    steps = [{"completions": None, "human_completion": {"text": "h"}, "chosen_completion": None}]
    (got,) = read(tmp_path, {**PRM800K, "label": {"steps": steps}})
    assert (got.steps, got.labels) == (["h"], [1.0])


SHEPHERD = {
    "input": "Tom has 3 pens. Step 1: 3+1 = 4 ки\nStep 2: 4-5 = 1 ки\nStep 3: The answer is: 1 ки",
    "label": "Tom has 3 pens. Step 1: 3+1 = 4 +\nStep 2: 4-5 = 1 -\nStep 3: The answer is: 1 -",
    "task": "GSM8K",
}


def test_math_shepherd(tmp_path):
    (got,) = read(tmp_path, SHEPHERD)
    assert got.question == "Tom has 3 pens."
    assert got.steps == ["Step 1: 3+1 = 4", "Step 2: 4-5 = 1", "Step 3: The answer is: 1"]
    assert got.labels == [1.0, 0.0, 0.0]


def test_process_bench(tmp_path):
    row = {"id": "x", "problem": "q", "steps": ["a", "b", "c"], "final_answer_correct": False}
    got = read(tmp_path, {**row, "label": 1}, {**row, "label": -1}, {**row, "label": 0})
    assert [one.labels for one in got] == [[1, 0, None], [1, 1, 1], [0, None, None]]
    assert got[0].tokens is None
    (own,) = read(tmp_path, {**row, "label": 1, "step_tokens": [[5], [6, 7], [8]]})
    assert own.tokens == [[5], [6, 7], [8]]


COUNTS = {
    "id": "7", "question": "q", "steps": ["a", "b"], "step_tokens": [[5], [6, 7]],
    "mc": [{"right": 3, "wrong": 1, "undecided": 0}, None],
    "root": {"right": 1, "wrong": 1, "undecided": 2}, "trace_right": True,
}  # fmt: skip


def test_counts(tmp_path):
    def derive(mc, root):
        assert root["undecided"] == 2
        return [None if one is None else one["right"] / 4 for one in mc]

    (got,) = read(tmp_path, COUNTS, derive=derive)
    assert (got.labels, got.tokens, got.form) == ([0.75, None], [[5], [6, 7]], step_rows.COUNTS)


def test_a_sampled_step_is_its_tokens(tmp_path):
    (got,) = read(tmp_path, {**COUNTS, "steps": ["\x1c", "b"]})
    assert got.tokens == [[5], [6, 7]]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"prompt": "q", "completions": ["a", " \n"], "labels": [1, 1]}, "line 2: step 1 is"),
        ({"prompt": "q", "completions": ["a", 3], "labels": [1, 1]}, "line 2: step 1 is 3"),
        ({"prompt": "q", "completions": ["a"], "labels": [1, 0]}, "line 2: 2 labels for 1 steps"),
        ({"prompt": "q", "completions": [], "labels": []}, "line 2: no steps"),
        ({"prompt": "q", "completions": ["a"], "labels": [1.5]}, "line 2: label 1.5"),
        ({"prompt": "q", "completions": ["a"], "labels": ["1"]}, "line 2: label '1'"),
        ({"prompt": "q", "completions": ["a"], "labels": 1}, "line 2: labels is 1; wanted: a list"),
        ({"prompt": "", "completions": ["a"], "labels": [1]}, "line 2: the question is ''"),
        ({"text": "q"}, "line 2: columns text; wanted: prompt, completions and labels;.*"
         "; fix: rename or add the columns"),
        ({"problem": "q", "steps": ["a"], "label": 1}, "line 2: label 1; wanted: -1 to 0"),
        ({**SHEPHERD, "label": "T" + SHEPHERD["label"]}, "line 2: input and label differ"),
        ({**SHEPHERD, "input": "q 1: ки", "label": "q 1: +"}, "line 2: no step before the first"),
        ({"input": "q Step 1: ки ки", "label": "q Step 1: + +"}, "step 1 is ''"),
        ({**PRM800K, "label": {"steps": [{}]}}, "line 2: not a row of PRM800K"),
        ({**COUNTS, "step_tokens": [[5]]}, "line 2: step_tokens of 1 steps"),
        ({**COUNTS, "step_tokens": [[5], []]}, "line 2: step_tokens of 2 steps, 1 not empty"),
        ({**COUNTS, "mc": [None]}, "line 2: 1 labels for 2 steps"),
        ({**COUNTS, "mc": [{"right": 1}, None]}, "line 2: counts"),
        ({**COUNTS, "root": None}, "line 2: counts None"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_by_line(tmp_path, row, match):
    with pytest.raises(DataError, match=match):
        read(tmp_path, {"prompt": "q", "completions": ["a"], "labels": [1]}, row)


def test_an_unknown_rating_is_refused(tmp_path):
    text = json.dumps(PRM800K).replace('"rating": 0', '"rating": 2')
    with pytest.raises(DataError, match="rating 2; wanted: -1, 0, 1 or null"):
        read(tmp_path, json.loads(text))
