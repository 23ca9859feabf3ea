"""Rows, scores and processes for tests of the teacher's cache on disk."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from distill_jax.rewards.score_bytes import Row, RowScores, ScoreSource
from distill_jax.rewards.score_store import FILE
from distill_jax.rewards.teacher_cache import CacheSettings, ScoreCache

ROOT = Path(__file__).resolve().parent.parent.parent


SOURCE = ScoreSource("model", "tokenizer", (1.0,), 20)


ENTRY = 32 + 16 + 16 + 4 * 7


# The same helpers, for processes of their own.
HELPERS = """
import os, sys
import numpy as np
from distill_jax.rewards.score_bytes import Row, RowScores, ScoreSource
from distill_jax.rewards.teacher_cache import CacheSettings, ScoreCache
SOURCE = ScoreSource("model", "tokenizer", (1.0,), 20)
def row(n): return Row(np.array([n], np.int32), np.array([7, 8, 9], np.int32))
def scores(n):
    x = np.arange(n, n + 3, dtype=np.float32)
    return RowScores(x, x + 0.5, np.float32(-n))
"""


def row(n):
    return Row(np.array([n], np.int32), np.array([7, 8, 9], np.int32))


def scores(n):
    x = np.arange(n, n + 3, dtype=np.float32)
    return RowScores(x, x + 0.5, np.float32(-n))


def opened(directory, warnings=None, *, entries=10_000, **how):
    """A cache on disk whose memory is too small for anything: all comes from the disk."""
    settings = CacheSettings(
        megabytes=1e-6, directory=str(directory), disk_megabytes=entries * ENTRY / 1e6, **how
    )
    return ScoreCache(settings, SOURCE, warn=[].append if warnings is None else warnings.append)


def fill(directory, count, **how):
    cache = opened(directory, **how)
    cache.store([row(n) for n in range(count)], [scores(n) for n in range(count)])
    cache.close()


def there(cache, count):
    """Which of the first rows are there; they must be right."""
    found = cache.lookup([row(n) for n in range(count)])
    for n, value in enumerate(found):
        if value is not None:
            assert [x.tobytes() for x in value] == [x.tobytes() for x in scores(n)]
    return [n for n, value in enumerate(found) if value is not None]


def start(code, *arguments, stdin=None):
    return subprocess.Popen(
        [sys.executable, "-c", HELPERS + code, *map(str, arguments)],
        cwd=ROOT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finished(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out, error


def sound(directory):
    """SQLite finds no fault, and the total is that of the rows."""
    db = sqlite3.connect(Path(directory) / FILE)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    total, rows = db.execute(
        "SELECT TOTAL(bytes), TOTAL(length(key) + length(value)) FROM scores"
    ).fetchone()
    assert total == rows == db.execute("SELECT bytes FROM totals").fetchone()[0]
    db.close()
    return int(total)
