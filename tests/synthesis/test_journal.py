"""Attempts and responses on disk: torn tails, kills between two writes, a full disk."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import DataError
from distill_jax.synthesis.journal import ATTEMPTS, RESPONSES, Attempt, History, Journal

RAW = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]})
EMPTY = RAW.replace('"a"', '""')
GOOD, BAD = Attempt(1.0, 2.0, 200, "ok"), Attempt(1.0, 2.0, 500, "server", 3.0, "no")


def full(directory: Path) -> Journal:
    journal = Journal(directory)
    journal.add("one", BAD, None)
    journal.add("one", GOOD, RAW)
    journal.add("two", GOOD, EMPTY)
    journal.add("two", GOOD, EMPTY)
    return journal


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = full(tmp_path)
    for journal in (made, Journal(tmp_path)):
        assert journal.history("one").kinds == ("server", "ok")
        found = journal.history("one").response
        assert found is not None and found.text == "a"
        assert journal.history("two").kinds == ("empty", "empty")
        assert len(journal.responses("two")) == 2
        assert journal.history("three") == History() and journal.responses("three") == []
    first = json.loads((tmp_path / ATTEMPTS).read_text().splitlines()[0])
    assert first == {
        "key": "one", "try": 1, "t_start": 1.0, "t_end": 2.0, "status": 500, "class": "server",
        "retry_after": 3.0, "usage": None, "message": "no",
    }  # fmt: skip


@pytest.mark.parametrize("name", [RESPONSES, ATTEMPTS])
def test_cut_at_any_byte_it_goes_on(tmp_path: Path, name: str) -> None:
    full(tmp_path)
    both = {one: (tmp_path / one).read_bytes() for one in (RESPONSES, ATTEMPTS)}
    whole = both[name]
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:cut])
        journal = Journal(tmp_path)
        left = max([end for end in ends if end <= cut], default=0)
        assert (tmp_path / name).read_bytes() == whole[:left]
        if cut in (0, 5, ends[0] - 1, len(whole) - 1):
            journal.add("new", GOOD, RAW)
            assert Journal(tmp_path).history("new").kinds == ("ok",)
            for one, content in both.items():
                (tmp_path / one).write_bytes(content)


def test_a_response_without_its_attempt_counts(tmp_path: Path) -> None:
    full(tmp_path)
    lines = (tmp_path / ATTEMPTS).read_bytes().splitlines(keepends=True)
    (tmp_path / ATTEMPTS).write_bytes(lines[0])
    journal = Journal(tmp_path)
    assert journal.history("one").kinds == ("server", "ok")
    assert journal.history("two").kinds == ("empty", "empty")


def test_after_an_abort_failures_are_tried_again_and_answers_kept(tmp_path: Path) -> None:
    full(tmp_path).add("bad", BAD, None)
    journal = Journal(tmp_path)
    journal.abort("enough")
    for one in (journal, Journal(tmp_path)):
        assert one.history("bad").kinds == ()
        assert one.history("one").kinds == ("ok",) and one.history("two").kinds == ("empty",) * 2
    journal.add("bad", BAD, None)
    assert Journal(tmp_path).history("bad").kinds == ("server",)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        (RESPONSES, "nonsense", f"{RESPONSES}, line 1: "),
        (RESPONSES, "[]", f"{RESPONSES}, line 1: "),
        (RESPONSES, '{"key": "x"}', "columns key; wanted: key, try, raw"),
        (ATTEMPTS, '{"try": 1}', "columns try; wanted: key, try, class"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    (tmp_path / name).write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        Journal(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = full(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (RESPONSES, ATTEMPTS)}

    def no_space(number: int) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            journal.add("one", GOOD, RAW)
        with pytest.raises(OSError, match="No space left"):
            journal.add("one", BAD, None)
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    journal.add("one", BAD, None)
    assert Journal(tmp_path).history("one").kinds == ("server", "ok", "server")
