"""The teacher's cache on disk after its file was damaged."""

import os
import sqlite3

import pytest

from distill_jax.rewards.score_store import FILE, ScoreStore
from tests.rewards.cache_disk import (
    ENTRY,
    fill,
    opened,
    row,
    scores,
    sound,
    there,
)


def not_a_database(path):
    path.write_bytes(b"these are not the pages" * 1000)


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def torn_page(path):
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)


def sql(*statements):
    def damage(path):
        db = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    return damage


DAMAGES = {
    "not a database": not_a_database,
    "truncated": truncated,
    "torn pages": torn_page,
    "another version": sql("PRAGMA user_version = 99"),
    "another program's": sql("PRAGMA application_id = 1"),
    "no such table": sql("DROP TABLE scores"),
    "no totals": sql("DELETE FROM totals"),
    "total without rows": sql("DELETE FROM scores", "UPDATE totals SET bytes = 1e12"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path, name):
    for n in range(2):
        fill(tmp_path, 300)
        DAMAGES[name](tmp_path / FILE)
        damaged, warnings = (tmp_path / FILE).read_bytes(), []
        cache = opened(tmp_path, warnings)
        assert there(cache, 300) == []
        cache.store([row(0)], [scores(0)])
        assert there(cache, 300) == [0] and sound(tmp_path) == ENTRY
        assert cache.metrics()["teacher_cache/damaged"] == 1
        aside = tmp_path / f"{FILE}.damaged-{n}"
        assert len(warnings) == 1 and str(aside) in warnings[0]
        assert aside.read_bytes() == damaged
        cache.close()
        (tmp_path / FILE).unlink()


@pytest.mark.parametrize("damage", ["x'00'", "'text'", "7", "zeroblob(60)", "another row's"])
def test_a_damaged_row_is_deleted_and_the_others_stay(tmp_path, damage):
    fill(tmp_path, 5)
    other = "(SELECT value FROM scores WHERE id = 1)"
    value = other if damage == "another row's" else damage
    sql(f"UPDATE scores SET value = {value} WHERE id = 3")(tmp_path / FILE)
    warnings = []
    cache = opened(tmp_path, warnings)
    assert there(cache, 5) == [0, 1, 3, 4]
    assert cache.metrics()["teacher_cache/damaged"] == 1
    assert len(warnings) == 1 and "1 damaged entries" in warnings[0]
    cache.store([row(2)], [scores(2)])
    assert there(cache, 5) == [0, 1, 2, 3, 4] and sound(tmp_path) == 5 * ENTRY


def test_a_process_whose_file_was_set_aside_goes_on_in_the_new_one(tmp_path):
    old = opened(tmp_path)
    old.store([row(0)], [scores(0)])
    sql("PRAGMA user_version = 99")(tmp_path / FILE)
    new = opened(tmp_path)  # sets the file aside, with the log that the other has open
    assert (tmp_path / f"{FILE}.damaged-0-wal").exists()
    new.store([row(1)], [scores(1)])
    old.store([row(2)], [scores(2)])
    old.close()
    new.store([row(3)], [scores(3)])
    assert there(new, 5) == there(opened(tmp_path), 5) == [1, 2, 3]
    assert not (tmp_path / f"{FILE}.damaged-1").exists()


def test_a_process_that_ends_leaves_the_new_log_alone(tmp_path):
    old = opened(tmp_path)
    old.store([row(0)], [scores(0)])
    sql("PRAGMA user_version = 99")(tmp_path / FILE)
    new = opened(tmp_path)
    new.store([row(1)], [scores(1)])
    old.close()
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    assert there(opened(tmp_path), 2) == [1]


def test_two_that_find_the_same_damage_set_it_aside_once(tmp_path):
    fill(tmp_path, 3)
    stores = [ScoreStore(tmp_path, 10**6, "lru", warn=print) for _ in range(2)]
    for store in stores:
        store._set_aside("found so")
    assert [store.damaged for store in stores] == [1, 0]


def test_a_disk_that_damages_every_file_is_left_alone(tmp_path):
    warnings = []
    cache = opened(tmp_path, warnings)
    for _ in range(5):
        cache.close()
        not_a_database(tmp_path / FILE)
        cache.lookup([row(0)])
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3
    assert len(warnings) == 4 and "going on without it" in warnings[-1]
