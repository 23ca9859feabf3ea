"""Scores on disk: one SQLite file that processes share and kill -9 cannot harm.

Every change is one transaction (write-ahead log, synchronous=NORMAL). A killed process loses at
most its last rows, a power cut the last few transactions. A damaged or foreign file is renamed to
`<name>.damaged-<n>` and a new one made. A failing disk raises nothing: the store goes off with one
warning. Local disks only: SQLite's write-ahead log and flock are not safe on network file systems.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
FILE = "teacher_scores.sqlite3"
SCHEMA = 1
_APPLICATION = 0x444A5453  # "DJTS"
BUSY_SECONDS = 5.0
_BUSY_LIMIT = 3  # calls in a row that found it locked, then it goes off
_DAMAGED_LIMIT = 3  # files set aside by one process, then it goes off: the disk is bad
_AT_ONCE = 500  # keys of one query
# Small columns first: to look for what to evict, SQLite need not read values.
_TABLES = (
    "CREATE TABLE scores (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, bytes INTEGER NOT NULL,"
    " used INTEGER NOT NULL, uses INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX by_used ON scores (used, id)",
    "CREATE INDEX by_uses ON scores (uses, used, id)",
    "CREATE TABLE totals (bytes INTEGER NOT NULL, tick INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0, 0)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)
# What goes first.
_ORDER = {"lru": "used, id", "lfu": "uses, used, id", "fifo": "id"}


class _DamagedFileError(Exception):
    pass


class ScoreStore:
    """Keys and values in `directory`, shared by any number of processes; not thread-safe.

    The limit counts values with their keys. The file is 3 to 5% larger (rows of 1,000 and of 50
    tokens), its log takes up to 16 MB more, and it does not shrink: room of deleted rows is
    used again.

    Args:
        directory: made when missing.
        max_bytes: of all values and keys; what does not fit makes others go.
        policy: who goes: "lru", "lfu" or "fifo".
        warn: called with one line for each problem.

    Attributes:
        bytes: of values and keys when this process last wrote.
        evicted: entries that this process made go.
        damaged: files that this process set aside.
        active: False once persistence is off.
    """

    def __init__(
        self, directory: str | Path, max_bytes: int, policy: str, *, warn: Callable[[str], None]
    ):
        self.path, self.max_bytes, self.policy = Path(directory) / FILE, max_bytes, policy
        self.bytes = self.evicted = self.damaged = 0
        self.active, self._busy, self._warn = True, 0, warn
        self._db: sqlite3.Connection | None = None
        self._inode = -1
        self._guarded(lambda db: None, None)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, object]:
        """What is there of these keys; values as they lie there, unchecked."""
        wanted = list(keys)

        def read(db: sqlite3.Connection) -> dict[bytes, object]:
            found: dict[bytes, object] = {}
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                found |= db.execute(f"SELECT key, value FROM scores WHERE key IN ({marks})", part)
            return found

        return self._guarded(read, {})

    def put(self, entries: Mapping[bytes, bytes], uses: Mapping[bytes, int]) -> None:
        """Notes uses, then adds entries; one that is there already stays as it is.

        Args:
            entries: values by key; one larger than the limit is passed over.
            uses: how often each key was looked up since the last call, latest last.
        """

        def write(db: sqlite3.Connection) -> tuple[int, int]:
            evicted = 0
            with _transaction(db):
                total, tick = _totals(db)
                marks = [(tick + i, n, key) for i, (key, n) in enumerate(uses.items(), 1)]
                db.executemany("UPDATE scores SET used=?, uses=uses+? WHERE key=?", marks)
                tick += len(uses)
                for key, value in entries.items():
                    size = len(key) + len(value)
                    there = db.execute("SELECT 1 FROM scores WHERE key=?", (key,)).fetchone()
                    if there or size > self.max_bytes:
                        continue
                    total, gone = self._make_room(db, total, size)
                    evicted, tick, total = evicted + gone, tick + 1, total + size
                    db.execute(
                        "INSERT INTO scores (key, bytes, used, uses, value) VALUES (?,?,?,1,?)",
                        (key, size, tick, value),
                    )
                db.execute("UPDATE totals SET bytes=?, tick=?", (total, tick))
            return total, evicted

        self._count(self._guarded(write, None))

    def delete(self, keys: Iterable[bytes]) -> None:
        """Removes entries."""
        gone = list(keys)

        def write(db: sqlite3.Connection) -> tuple[int, int]:
            with _transaction(db):
                total, tick = _totals(db)
                for key in gone:
                    row = db.execute("SELECT bytes FROM scores WHERE key=?", (key,)).fetchone()
                    total -= row[0] if row else 0
                    db.execute("DELETE FROM scores WHERE key=?", (key,))
                db.execute("UPDATE totals SET bytes=?", (total,))
            return total, 0

        self._count(self._guarded(write, None))

    def close(self) -> None:
        """Closes the file; a later call opens it again."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None

    def _count(self, done: tuple[int, int] | None) -> None:
        if done is not None:  # only what was committed
            self.bytes, self.evicted = done[0], self.evicted + done[1]

    def _make_room(self, db: sqlite3.Connection, total: int, size: int) -> tuple[int, int]:
        """(bytes that are left, entries that went) so that `size` more fit."""
        evicted = 0
        while total + size > self.max_bytes:
            order = _ORDER[self.policy]
            row = db.execute(f"SELECT id, bytes FROM scores ORDER BY {order} LIMIT 1").fetchone()
            if row is None:
                raise _DamagedFileError(f"{total} bytes in no rows")
            db.execute("DELETE FROM scores WHERE id=?", (row[0],))
            total, evicted = total - row[1], evicted + 1
        return total, evicted

    # --- the file -----------------------------------------------------------------------------

    def _guarded(self, action: Callable[[sqlite3.Connection], T], default: T) -> T:
        """What `action` returns, `default` where the file cannot be used."""
        for _ in range(2):  # a damaged file is set aside, and the action tried on a new one
            if not self.active:
                return default
            try:
                done = action(self._connection())
                self._busy = 0
                return done
            except (sqlite3.Error, OSError, _DamagedFileError) as error:
                self.close()
                if not self._mend(error):
                    return default
        return default

    def _mend(self, error: Exception) -> bool:
        """Whether to try again after this error."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._busy += 1
            if self._busy == 1:
                self._warn(f"teacher cache: {self.path} is locked by another process, passed over")
            if self._busy >= _BUSY_LIMIT:
                self._off(f"locked {_BUSY_LIMIT} times in a row")
            return False
        # SQLITE_ERROR: our statements are fixed, so a table or column is not what it was.
        damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
        if isinstance(error, _DamagedFileError) or code in damage:
            try:
                self._set_aside(str(error))
            except OSError as other:
                self._off(f"{error}; {other}")
            return self.active
        self._off(str(error))
        return False

    def _off(self, why: str) -> None:
        self.active = False
        self._warn(f"teacher cache: {self.path} cannot be used ({why}); going on without it")

    def _connection(self) -> sqlite3.Connection:
        if self._db is not None and _inode(self.path) != self._inode:
            self.close()  # another process set the file aside
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._inode = _inode(self.path)
            _write_ahead(self._db)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA journal_size_limit = 16000000")
            self._count(self._check(self._db))
        return self._db

    def _check(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Makes the tables of a new file; an old one must be ours and within the limit."""
        with _transaction(db):
            ours = [db.execute(f"PRAGMA {n}").fetchone()[0] for n in _OURS]
            if ours == [0, 0] and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES:
                    db.execute(statement)
            elif ours != list(_OURS.values()):
                got = ", ".join(f"{n} {v}" for n, v in zip(_OURS, ours, strict=True))
                raise _DamagedFileError(f"another schema: {got}")
            total, _ = _totals(db)
            total, evicted = self._make_room(db, total, 0)
            db.execute("UPDATE totals SET bytes=?", (total,))
        return total, evicted

    def _set_aside(self, why: str) -> None:
        """Renames the file, unless another process has done so; its log first.

        A log that stayed would be read into the new file. A process that still has the old one
        open goes on there, and sees at its next call that the name means another file.
        """
        with open(f"{self.path}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _inode(self.path) != self._inode:
                return
            n = 0
            while (aside := f"{self.path}.damaged-{n}") and os.path.lexists(aside):
                n += 1
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        self.damaged += 1
        self._warn(f"teacher cache: {self.path} is damaged ({why}); renamed to {aside}, restarted")
        if self.damaged >= _DAMAGED_LIMIT:
            self._off(f"damaged {_DAMAGED_LIMIT} times")


_OURS = {"application_id": _APPLICATION, "user_version": SCHEMA}


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _write_ahead(db: sqlite3.Connection) -> None:
    # The busy timeout does not hold for this change, and processes may start at once.
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _totals(db: sqlite3.Connection) -> tuple[int, int]:
    row = db.execute("SELECT bytes, tick FROM totals").fetchone()
    if row is None:
        raise _DamagedFileError("no totals")
    return row


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
