"""Answers on disk: found again, torn lines dropped, other settings begun afresh or refused."""

import json
from pathlib import Path

import pytest

from distill_jax.core.errors import DataError
from distill_jax.core.files import store_path
from distill_jax.inference import store
from distill_jax.inference.store import AnswerStore, Batch

MADE_FROM = {"adapter": "a", "sampling": {"top_p": 1.0}}
# Two samples each of problems 2 and 0, then of 1: batches go by length, not by number.
FIRST = Batch("sampled", (2, 0), [[5], [6, 7], [8], [9]], [True, True, False, True])
SECOND = Batch("sampled", (1,), [[1, 2], [3]], [True, True], {"right": [True, False]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = AnswerStore(tmp_path / "made" / "x.checkpoint.jsonl", MADE_FROM)
    file.add(FIRST)
    file.add(SECOND)
    return file.path


def test_batches_are_found_again_by_decoding_and_problems(path: Path) -> None:
    again = AnswerStore(path, MADE_FROM)
    assert again.find("sampled", [2, 0]) == FIRST and again.find("sampled", (1,)) == SECOND
    assert again.find("greedy", [2, 0]) is None and again.find("sampled", [0, 2]) is None
    assert again.count() == 6 and not again.begun_afresh
    assert again.responses("sampled") == [[[8], [9]], [[1, 2], [3]], [[5], [6, 7]]]
    assert again.responses("greedy") == []


def test_a_line_a_batch_and_further_columns_only_where_there_are_any(path: Path) -> None:
    first, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {"made_from": MADE_FROM}
    assert [set(row) - {"decoding", "problems", "tokens", "ended"} for row in rows] == [
        set(),
        {"columns"},
    ]


def test_a_torn_last_line_is_dropped_wherever_it_tears(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    header = whole.index(b"\n") + 1
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        file = AnswerStore(path, MADE_FROM)
        assert file.find("sampled", (1,)) is None and file.count() == 4
        file.add(SECOND)
        assert path.read_bytes() == whole
    for size in (header - 1, 0):  # the very first line, too
        path.write_bytes(whole[:size])
        file = AnswerStore(path, MADE_FROM)
        assert file.count() == 0 and not file.begun_afresh
        assert path.read_bytes() == whole[:header]


def test_other_weights_begin_afresh(path: Path) -> None:
    file = AnswerStore(path, {**MADE_FROM, "adapter": "b"})
    assert file.begun_afresh and file.count() == 0 and file.find("sampled", (1,)) is None
    assert len(path.read_bytes().splitlines()) == 1
    assert not AnswerStore(path, {**MADE_FROM, "adapter": "b"}).begun_afresh
    assert AnswerStore(path, MADE_FROM).begun_afresh


@pytest.mark.parametrize("line", ["{", "[]", '{"decoding": "greedy"}', '{"made_from": {}}'])
def test_a_damaged_line_is_an_error(path: Path, line: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], line + "\n", *lines[1:]]))
    with pytest.raises(DataError, match="line 2: .*fix: delete the file"):
        AnswerStore(path, MADE_FROM)


def test_reading_changes_nothing(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    found, batches, size = store.read(path)
    assert found == MADE_FROM and batches == [FIRST] and size == before.rindex(b"\n") + 1
    assert path.read_bytes() == before
    assert store.read(path.with_name("none")) == (None, [], 0)


# --- a file that is rendered from a store -----------------------------------------------------


@pytest.mark.parametrize("complete", [False, True])
def test_other_settings_are_refused(path: Path, complete: bool) -> None:
    out = path.with_name("x.jsonl")
    if complete:
        out.write_text("rows\n")
    held = path.read_bytes()
    other = {**MADE_FROM, "adapter": "b"}
    with pytest.raises(
        DataError, match='other settings: adapter was "a", now "b"; fix: name another'
    ) as error:
        AnswerStore(path, other, rendered=out)
    assert "sampling" not in str(error.value) and str(out) in str(error.value)
    with pytest.raises(DataError, match='adapter was "a", now null; rows was null, now 4'):
        AnswerStore(path, {"sampling": {"top_p": 1.0}, "rows": 4}, rendered=out)
    assert path.read_bytes() == held
    assert AnswerStore(path, MADE_FROM, rendered=out).count() == 6


def test_without_answers_other_settings_are_taken(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl.store", tmp_path / "a.jsonl"
    AnswerStore(path, {"seed": 1}, rendered=out)
    assert AnswerStore(path, {"seed": 2}, rendered=out).begun_afresh
    assert store.read(path)[0] == {"seed": 2}
    out.write_text("only errors\n")  # complete, of no answer
    with pytest.raises(DataError, match="seed was 2, now 3"):
        AnswerStore(path, {"seed": 3}, rendered=out)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("mine\n")
    with pytest.raises(DataError, match=r"mine\.jsonl is there without its mine\.jsonl\.store"):
        AnswerStore(store_path(out), MADE_FROM, rendered=out)
    assert out.read_text() == "mine\n" and not store_path(out).exists()
