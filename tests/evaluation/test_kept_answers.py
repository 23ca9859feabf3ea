"""Completions on disk: found again, torn lines dropped, other weights begun afresh."""

import pytest

from distill_jax.core.errors import DataError
from distill_jax.evaluation import kept_answers
from distill_jax.evaluation.kept_answers import Batch, KeptAnswers

MADE_FROM = {"adapter": "a", "sampling": {"top_p": 1.0}}
# Two samples each of problems 2 and 0, then of 1: batches go by length, not by number.
FIRST = Batch("sampled", (2, 0), [[5], [6, 7], [8], [9]], [True, True, False, True])
SECOND = Batch("sampled", (1,), [[1, 2], [3]], [True, True])


@pytest.fixture
def path(tmp_path):
    file = KeptAnswers(tmp_path / "made" / "x.checkpoint.jsonl", MADE_FROM)
    file.add(FIRST)
    file.add(SECOND)
    return file.path


def test_batches_are_found_again_by_decoding_and_problems(path):
    again = KeptAnswers(path, MADE_FROM)
    assert again.find("sampled", [2, 0]) == FIRST and again.find("sampled", (1,)) == SECOND
    assert again.find("greedy", [2, 0]) is None and again.find("sampled", [0, 2]) is None
    assert again.count() == 6 and not again.begun_afresh
    assert again.responses("sampled") == [[[8], [9]], [[1, 2], [3]], [[5], [6, 7]]]
    assert again.responses("greedy") == []


def test_a_torn_last_line_is_dropped_wherever_it_tears(path):
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    header = whole.index(b"\n") + 1
    for size in (len(whole) - 1, last + 1, last):
        path.write_bytes(whole[:size])
        file = KeptAnswers(path, MADE_FROM)
        assert file.find("sampled", (1,)) is None and file.count() == 4
        file.add(SECOND)
        assert path.read_bytes() == whole
    for size in (header - 1, 0):  # the very first line, too
        path.write_bytes(whole[:size])
        file = KeptAnswers(path, MADE_FROM)
        assert file.count() == 0 and not file.begun_afresh
        assert path.read_bytes() == whole[:header]


def test_other_weights_begin_afresh(path):
    file = KeptAnswers(path, {**MADE_FROM, "adapter": "b"})
    assert file.begun_afresh and file.count() == 0 and file.find("sampled", (1,)) is None
    assert len(path.read_bytes().splitlines()) == 1
    assert not KeptAnswers(path, {**MADE_FROM, "adapter": "b"}).begun_afresh
    assert KeptAnswers(path, MADE_FROM).begun_afresh


@pytest.mark.parametrize("line", ["{", "[]", '{"decoding": "greedy"}', '{"made_from": {}}'])
def test_a_damaged_line_is_told(path, line):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], line + "\n", *lines[1:]]))
    with pytest.raises(DataError, match="line 2: .*fix: delete the file"):
        KeptAnswers(path, MADE_FROM)


def test_reading_changes_nothing(path):
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    found, batches, size = kept_answers.read(path)
    assert found == MADE_FROM and batches == [FIRST] and size == before.rindex(b"\n") + 1
    assert path.read_bytes() == before
    assert kept_answers.read(path.with_name("none")) == (None, [], 0)
