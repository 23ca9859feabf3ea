"""Pairs of completions: TRL's rows, and pairs made of traces."""

import json

import pytest

from distill_jax.core.errors import DataError
from distill_jax.data import pair_rows
from distill_jax.data.pair_rows import Completion
from distill_jax.data.trace_rows import Trace

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "2 + 2?"}


def said(text):
    return {"role": "assistant", "content": text}


def read(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pair_rows.read(path)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "margin": 3.0},
        {"prompt": [USER], "chosen": [said("4")], "rejected": [said("5")]},
        {"prompt": [SYSTEM, USER], "chosen": [said("4")], "rejected": [said("5")], "id": 7},
        {"chosen": [USER, said("4")], "rejected": [USER, said("5")]},
        {"chosen": [SYSTEM, USER, said("4")], "rejected": [USER, said("5")], "prompt": None},
    ],
)
def test_rows_of_trl(tmp_path, row):
    (pair,) = read(tmp_path, row)
    assert pair[1:] == ("2 + 2?", Completion("4"), Completion("5"))
    assert pair.where.endswith("rows.jsonl, line 1")


def test_equal_completions_keep_their_prompt(tmp_path):
    (pair,) = read(tmp_path, {"chosen": [USER, said("4")], "rejected": [USER, said("4")]})
    assert pair[1:] == ("2 + 2?", Completion("4"), Completion("4"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "2 + 2?", "chosen": "4"},
         "line 1: columns prompt, chosen; wanted: .prompt, .*; fix: rename or add the columns"),
        ({"chosen": "It is 4", "rejected": "It is 5"}, "field chosen is 'It is 4'; wanted"),
        ({"prompt": " ", "chosen": "4", "rejected": "5"}, "an empty prompt"),
        ({"prompt": [USER], "chosen": "4", "rejected": [said("5")]}, "field chosen is '4'"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [said("5")]}, "one assistant's turn"),
        ({"prompt": [USER], "chosen": [], "rejected": [said("5")]}, "field chosen"),
        ({"prompt": [USER, said("4"), USER], "chosen": [said("4")], "rejected": [said("5")]},
         "a prompt of 3 turns; wanted: one user's turn"),
        ({"chosen": [said("4")], "rejected": [said("5")]}, "a prompt of 0 turns"),
        ({"chosen": [USER, said("4")], "rejected": [USER, said("5"), USER, said("6")]},
         "completions of 1 and 3 turns"),
        ({"chosen": [{"role": "user"}, said("4")], "rejected": [USER, said("5")]},
         "{role, content} each"),
        ({"tokens": [1], "completion": "4"}, "wanted: a row of stage traces"),
    ],
)  # fmt: skip
def test_rows_that_are_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, row)


def trace(question, tokens, verdict, *, ended=True, sample=0):
    """verdict: "r", "w", or "u" for undecided."""
    right, undecided = verdict == "r", verdict == "u"
    text = " ".join(map(str, tokens))
    return Trace(question, question, "4", text, tokens, ended, right, undecided, sample)


def both(pairs):
    return [(pair.chosen.tokens, pair.rejected.tokens) for pair in pairs]


def test_rows_of_stage_traces(tmp_path):
    rows = [trace("q", [1, 2], "r"), trace("q", [3], "w")]
    found = read(tmp_path, *({**vars(row), "prompt": "p"} for row in rows))
    assert found == rows
    pairs, figures = pair_rows.of_traces(found)
    assert pairs == [
        pair_rows.Pair("problem q", "q", Completion("1 2", [1, 2]), Completion("3", [3]))
    ]
    assert figures == {
        "rows": 2, "undecided": 0, "truncated": 0, "problems": 1, "problems_without_pair": 0,
    }  # fmt: skip


def test_right_over_wrong():
    rows = [
        *(trace("a", [1, i], "r") for i in range(3)), trace("a", [1, 0], "r", sample=9),
        *(trace("a", [2, i], "w") for i in range(2)),
        trace("a", [3], "u"), trace("a", [2, 5], "w", ended=False),
        trace("b", [1], "r"), trace("c", [2], "w"), trace("d", [4], "u"),
    ]  # fmt: skip
    pairs, figures = pair_rows.of_traces(rows, per_problem=9)
    assert figures == {
        "rows": 11, "undecided": 2, "truncated": 1, "problems": 4, "problems_without_pair": 3,
    }  # fmt: skip
    # Three right ones and two wrong: each right one once, a wrong one twice, no pair twice.
    found = both(pairs)
    assert sorted(chosen for chosen, _ in found) == [[1, 0], [1, 1], [1, 2]]
    assert {tuple(rejected) for _, rejected in found} == {(2, 0), (2, 1)}
    assert {pair.question for pair in pairs} == {"a"}
    few, _ = pair_rows.of_traces(rows, per_problem=2)
    assert both(few) == found[:2] and found[0][1] != found[1][1]
    orders = {str(both(pair_rows.of_traces(rows, seed=seed)[0])) for seed in range(8)}
    assert len(orders) > 1


def test_short_over_long():
    rows = [
        trace("a", [1] * 10, "r"), trace("a", [2] * 12, "r"), trace("a", [3] * 13, "r"),
        trace("a", [4] * 20, "r"), trace("a", [5] * 30, "w"), trace("a", [6], "w"),
        trace("b", [1] * 10, "r"), trace("b", [2] * 12, "r"), trace("c", [1], "w"),
    ]  # fmt: skip
    # 1.3 × 10 tokens: 13 and 20 are long enough, 12 is not.
    pairs, figures = pair_rows.of_traces(rows, prefer="short", length_ratio=1.3)
    assert both(pairs) == [([1] * 10, [4] * 20), ([1] * 10, [3] * 13)]
    assert figures["problems_without_pair"] == 2
    assert both(pair_rows.of_traces(rows, prefer="short", per_problem=1)[0]) == both(pairs)[:1]
    wide = pair_rows.of_traces(rows, prefer="short", length_ratio=2.0)[0]
    assert both(wide) == both(pairs)[:1]
