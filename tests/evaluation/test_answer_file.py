"""The file of answers: goes on where it was cut, mixes no settings, is never half done."""

import json
import os

import pytest

from distill_jax.core.errors import DataError
from distill_jax.evaluation.answer_file import AnswerFile

SETTINGS = {"seed": 0, "sampling": {"temperature": 0.0}}
ROWS = [{"index": i, "response": f"antwoord {i} é \u2028 \ud800"} for i in range(5)]


def write(path, rows=ROWS, *, upto=5, settings=SETTINGS):
    with AnswerFile(path, settings, len(rows)) as file:
        while file.done < upto:
            file.append(rows[file.done : min(file.done + 2, upto)])
        if upto == len(rows):
            file.finish()
    return path


@pytest.fixture
def whole(tmp_path):
    return write(tmp_path / "whole.jsonl").read_bytes()


def test_rows_come_back_as_they_were(whole):
    assert [json.loads(line) for line in whole.decode().split("\n")[:-1]] == ROWS


def test_cut_off_anywhere_it_ends_with_the_same_bytes(tmp_path, whole):
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in [0, 1, 20, *(end + by for end in ends for by in (-1, 0, 1))]:
        path = tmp_path / "cut.jsonl"
        write(path, upto=0)
        part = path.with_name("cut.jsonl.part")
        part.write_bytes(whole[:cut])
        with AnswerFile(path, SETTINGS, len(ROWS)) as file:
            assert file.done == whole[:cut].count(b"\n") and not file.complete
            assert not path.exists()
        assert write(path).read_bytes() == whole
        assert sorted(os.listdir(tmp_path))[:2] == ["cut.jsonl", "cut.jsonl.settings.json"]
        path.unlink()


def test_a_complete_file_is_left_alone(tmp_path, whole):
    path = tmp_path / "whole.jsonl"
    before = path.stat().st_mtime_ns
    with AnswerFile(path, SETTINGS, len(ROWS)) as file:
        assert file.complete and file.done == len(ROWS)
        with pytest.raises(DataError):
            file.append([{"index": 5}])
    assert path.read_bytes() == whole and path.stat().st_mtime_ns == before


@pytest.mark.parametrize("upto", [3, 5])
def test_other_settings_are_refused(tmp_path, upto):
    path = write(tmp_path / "a.jsonl", upto=upto)
    held = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = {**SETTINGS, "seed": 1}
    with pytest.raises(DataError, match="other settings: seed was 0, now 1; fix: name another"):
        AnswerFile(path, other, len(ROWS))
    with pytest.raises(DataError, match="rows was 5, now 4"):
        AnswerFile(path, SETTINGS, 4)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == held


def test_a_file_without_rows_takes_other_settings(tmp_path):
    path = write(tmp_path / "a.jsonl", upto=0)
    write(path, settings={"seed": 2})
    held = json.loads((tmp_path / "a.jsonl.settings.json").read_text())
    assert held == {"seed": 2, "rows": 5}


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("mine\n")
    with pytest.raises(DataError, match="without a readable mine.jsonl.settings.json"):
        AnswerFile(path, SETTINGS, 5)
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("damage", ["not JSON\n", '{"index": 7}\n', "[]\n", '{"index": "0"}\n'])
def test_damaged_rows_are_refused(tmp_path, damage):
    path = write(tmp_path / "a.jsonl", upto=1)
    with path.with_name("a.jsonl.part").open("a") as file:
        file.write(damage)
    with pytest.raises(DataError, match=r"line 2 of .* is not row 1 of 5; fix: delete the file"):
        AnswerFile(path, SETTINGS, 5)


def test_rows_out_of_order_and_too_few(tmp_path):
    with AnswerFile(tmp_path / "a.jsonl", SETTINGS, 5) as file:
        for rows in (ROWS[1:2], ROWS[:1] + ROWS[2:3]):
            with pytest.raises(DataError, match="wanted: the next"):
                file.append(rows)
        with pytest.raises(DataError, match="0 of 5 rows"):
            file.finish()
    assert not (tmp_path / "a.jsonl").exists()


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(DataError, match="is a directory"):
        AnswerFile(tmp_path, SETTINGS, 5)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        AnswerFile(tmp_path / "file" / "a.jsonl", SETTINGS, 5)
    write(tmp_path / "new" / "folders" / "a.jsonl")  # made where they can be
