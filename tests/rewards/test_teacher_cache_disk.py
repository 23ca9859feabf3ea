import os
import signal
import sqlite3
import time

import numpy as np
import pytest

from distill_jax.rewards import score_store
from distill_jax.rewards.score_bytes import Row, RowScores
from distill_jax.rewards.score_store import FILE
from distill_jax.rewards.teacher_cache import CacheSettings, ScoreCache
from tests.rewards.cache_disk import (
    ENTRY,
    SOURCE,
    fill,
    finished,
    opened,
    row,
    scores,
    sound,
    start,
    there,
)

pytestmark = pytest.mark.slow


def test_scores_outlive_the_process_and_move_into_memory(tmp_path):
    out, error = finished(
        start(
            "c = ScoreCache(CacheSettings(megabytes=1.0, directory=sys.argv[1]), SOURCE)\n"
            "c.store([row(n) for n in range(5)], [scores(n) for n in range(5)])\n",
            tmp_path,
        )
    )
    assert error == ""
    cache = ScoreCache(CacheSettings(megabytes=1.0, directory=str(tmp_path)), SOURCE)
    assert there(cache, 6) == [0, 1, 2, 3, 4]
    assert cache.metrics()["teacher_cache/bytes"] == 5 * ENTRY
    assert cache.metrics()["teacher_cache/disk_bytes"] == 5 * ENTRY == sound(tmp_path)
    (tmp_path / FILE).unlink()
    assert there(cache, 6) == [0, 1, 2, 3, 4]  # now from memory


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo"])
@pytest.mark.parametrize(("short", "fit"), [(0, 3), (0.01, 2)])
def test_the_limit_on_disk_holds_to_the_byte(tmp_path, policy, short, fit):
    fill(tmp_path, 8, entries=3 - short, policy=policy)
    assert sound(tmp_path) == fit * ENTRY
    assert there(opened(tmp_path), 8) == list(range(8 - fit, 8))


def test_a_smaller_limit_holds_from_the_start(tmp_path):
    fill(tmp_path, 8)
    cache = opened(tmp_path, entries=2)
    assert sound(tmp_path) == 2 * ENTRY and cache.metrics()["teacher_cache/evictions"] == 6


def test_an_entry_larger_than_the_disk_is_counted_and_harms_nothing(tmp_path):
    settings = CacheSettings(megabytes=1.0, directory=str(tmp_path), disk_megabytes=ENTRY / 1e6)
    cache = ScoreCache(settings, SOURCE)
    long = Row(np.array([1], np.int32), np.arange(9, dtype=np.int32))
    x = np.zeros(9, np.float32)
    cache.store([row(0), long], [scores(0), RowScores(x, x, x[0])])
    assert cache.metrics()["teacher_cache/rejected"] == 1
    assert cache.metrics()["teacher_cache/evictions"] == 0
    assert sound(tmp_path) == ENTRY
    assert cache.lookup([long])[0] is not None  # memory had room


def test_the_first_value_stays(tmp_path):
    one, two = opened(tmp_path), opened(tmp_path)
    one.store([row(0)], [scores(0)])
    two.store([row(0)], [scores(9)])
    assert there(opened(tmp_path), 1) == [0]


WRITER = """
where, first, count, entries = sys.argv[1], *map(int, sys.argv[2:5])
print("ready", flush=True)
sys.stdin.read()  # until both are ready
c = ScoreCache(CacheSettings(megabytes=1e-6, directory=where, disk_megabytes=entries * 92 / 1e6),
               SOURCE)
for n in range(first, first + count, 2):
    c.lookup([row(n), row(n // 2)])
    c.store([row(n), row(n + 1)], [scores(n), scores(n + 1)])
c.close()
"""


@pytest.mark.parametrize("entries", [10_000, 40])
def test_two_processes_write_at_once(tmp_path, entries):
    # Rows 100 to 199 are written by both; neither finds a file when it starts.
    go, gone = os.pipe()
    pair = [start(WRITER, tmp_path, first, 200, entries, stdin=go) for first in (0, 100)]
    os.close(go)
    assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
    os.close(gone)
    for process in pair:
        assert finished(process)[1] == ""  # no warning
    warnings = []
    found = there(opened(tmp_path, warnings), 301)
    assert len(found) == min(entries, 300) and 300 not in found
    assert sound(tmp_path) == len(found) * ENTRY
    assert warnings == [] and not list(tmp_path.glob("*damaged*"))


KILLED = """
c = ScoreCache(CacheSettings(megabytes=1e-6, directory=sys.argv[1]), SOURCE)
for n in range(0, 10**6, 50):
    c.store([row(m) for m in range(n, n + 50)], [scores(m) for m in range(n, n + 50)])
    print(n + 50, flush=True)
"""


@pytest.mark.parametrize("after", [1, 2, 5, 30])
def test_kill_9_at_any_moment_loses_nothing_that_was_stored(tmp_path, after):
    process = start(KILLED, tmp_path)
    stored = 0
    for line in process.stdout:
        stored = int(line)
        if stored >= 50 * after:
            break
    time.sleep(0.0007 * after)  # into the next write
    process.send_signal(signal.SIGKILL)
    # Not communicate(): it does not see the lines that the reader above holds already.
    rest = process.stdout.read().split()
    process.wait()
    stored = int(rest[-1]) if rest else stored
    warnings = []
    found = there(opened(tmp_path, warnings), stored + 100)
    # What was said to be stored is there; of the one in flight all or nothing.
    assert found in (list(range(stored)), list(range(stored + 50)))
    assert warnings == [] and sound(tmp_path) == len(found) * ENTRY


def goes_on_without(cache, warnings, said):
    for n in range(3):
        cache.store([row(n)], [scores(n)])
        assert there(cache, 5) == []
    assert len(warnings) == 1 and said in warnings[0]
    assert "going on without it" in warnings[0]
    assert cache.metrics()["teacher_cache/disk_bytes"] == 0


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    warnings = []
    goes_on_without(opened(tmp_path / "file" / "below", warnings), warnings, "Not a directory")


READ_ONLY = """
if os.geteuid() == 0: os.seteuid(65534)  # root may write anywhere
said = []
c = ScoreCache(CacheSettings(megabytes=1.0, directory=sys.argv[1]), SOURCE, warn=said.append)
for n in range(3): c.store([row(n)], [scores(n)])
print(len(said), "going on without it" in said[0], [v is not None for v in c.lookup([row(2)])])
"""


@pytest.mark.parametrize("before", [0, 3])
def test_a_read_only_directory(tmp_path, before):
    where = tmp_path / "cache"
    where.mkdir()
    if before:
        fill(where, before)
        (where / FILE).chmod(0o444)
    where.chmod(0o555)
    for above in where.parents:  # pytest makes its directories for the user alone
        if above.stat().st_mode & 0o777 == 0o700:
            above.chmod(0o755)
    try:
        out, error = finished(start(READ_ONLY, where))
    finally:
        where.chmod(0o755)
    assert (out, error) == ("1 True [True]\n", "")


def test_a_full_disk(tmp_path):
    warnings = []
    cache = opened(tmp_path, warnings)
    cache._disk._connection().execute("PRAGMA max_page_count = 8")
    count = 500
    cache.store([row(n) for n in range(count)], [scores(n) for n in range(count)])
    goes_on_without(cache, warnings, "full")
    assert sound(tmp_path) == 0  # the write that failed left nothing half done


def test_a_locked_file_is_passed_over_and_then_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(score_store, "BUSY_SECONDS", 0.01)
    warnings = []
    cache = opened(tmp_path, warnings)
    cache.store([row(0)], [scores(0)])
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)

    def write_while_locked():
        other.execute("BEGIN IMMEDIATE")
        cache.store([row(1)], [scores(1)])
        other.execute("ROLLBACK")

    for _ in range(4):  # passing: it is used again
        write_while_locked()
        assert there(cache, 2) == [0]
    assert {"locked" in w and "going on" not in w for w in warnings} == {True}
    other.execute("BEGIN IMMEDIATE")
    for n in range(4):
        cache.store([row(n)], [scores(n)])
    other.execute("ROLLBACK")
    assert "going on without it" in warnings[-1] and there(cache, 2) == []


def test_ctrl_c_in_a_write_leaves_nothing_half_done(tmp_path, monkeypatch):
    warnings = []
    cache = opened(tmp_path, warnings)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache._disk, "_make_room", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.store([row(0)], [scores(0)])
    cache.store([row(1)], [scores(1)])
    assert there(cache, 2) == [1] and sound(tmp_path) == ENTRY
    assert warnings == []
