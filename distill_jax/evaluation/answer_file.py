"""A JSONL file that is written in pieces and goes on where it was cut off, with the same bytes.

While it grows it is FILE.part; it is FILE when it is complete. FILE.settings.json, written first,
says what the rows were made with: rows of other settings never stand in one file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import jax

from distill_jax.core import files, sharding
from distill_jax.core.errors import DataError


class AnswerFile:
    """Rows with `index` 0, 1, … in order. All processes use it alike, the first one writes.

    Args:
        path: the file; folders above it are made.
        settings: JSON-able; all that the rows depend on.
        rows: how many there will be.

    Attributes:
        done: rows that are there.
        complete: whether all are.

    Raises:
        DataError: the file was made with other settings, by something else, or is damaged; or
            no file can be written there.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], rows: int):
        self.path, self.rows = path, rows
        self.part = path.with_name(path.name + ".part")
        self.sidecar = path.with_name(path.name + ".settings.json")
        self._handle: IO[bytes] | None = None
        self._check_place()
        wanted = json.loads(json.dumps({**settings, "rows": rows}))
        self._check_settings(wanted)
        self.complete = path.exists()
        self.done, self._size = (rows, 0) if self.complete else _count(self.part, rows)
        sharding.barrier(f"read {path.name}")  # before the first process changes what was read
        if not self.complete and jax.process_index() == 0:
            self._begin(wanted)

    def _check_place(self) -> None:
        if self.path.is_dir():
            raise DataError(f"{self.path} is a directory", wanted="a file to write")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}") from error

    def _check_settings(self, wanted: dict[str, Any]) -> None:
        held = [path for path in (self.path, self.part) if path.exists() and path.stat().st_size]
        if not held:
            return
        fix = f"name another file, or delete {held[0]}"
        try:
            found = json.loads(self.sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            got = f"{held[0]} is there without a readable {self.sidecar.name}"
            raise DataError(got, wanted="a file that this command began", fix=fix) from None
        if found != wanted:
            names = sorted({*found, *wanted}) if isinstance(found, dict) else []
            told = [
                f"{name} was {json.dumps(found.get(name))}, now {json.dumps(wanted.get(name))}"
                for name in names
                if found.get(name) != wanted.get(name)
            ]
            raise DataError(
                f"{held[0]} was made with other settings: {'; '.join(told)}",
                fix=f"{fix} to make it again",
            )

    def _begin(self, settings: dict[str, Any]) -> None:
        try:
            if not self._size:
                files.write_text(self.sidecar, json.dumps(settings, indent=2) + "\n")
            self._handle = self.part.open("ab")
            self._handle.truncate(self._size)  # a row that a kill has cut in two
        except OSError as error:
            raise DataError(f"cannot write {self.part}: {error.strerror}") from error

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows after those that are there; on disk when this returns.

        Raises:
            DataError: they are not the next ones; or they cannot be written.
        """
        indices = [row["index"] for row in rows]
        if indices != list(range(self.done, self.done + len(rows))) or self.complete:
            raise DataError(f"rows {indices} after {self.done} of {self.rows}", wanted="the next")
        if self._handle is not None:
            lines = (json.dumps(row, allow_nan=False) + "\n" for row in rows)
            try:
                self._handle.write("".join(lines).encode("ascii"))
                self._handle.flush()
                os.fsync(self._handle.fileno())
            except OSError as error:
                raise DataError(f"cannot write {self.part}: {error.strerror}") from error
        self.done += len(rows)

    def finish(self) -> None:
        """Gives the file its name.

        Raises:
            DataError: rows are missing.
        """
        if self.done != self.rows:
            raise DataError(f"{self.done} of {self.rows} rows in {self.part}", wanted="all")
        if self._handle is not None:
            self._handle.close()
            self._handle = None
            self.part.replace(self.path)
        self.complete = True
        sharding.barrier(f"finish {self.path.name}")

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.close()


def _count(part: Path, rows: int) -> tuple[int, int]:
    """Whole rows of the file, and their bytes."""
    if not part.exists():
        return 0, 0
    done = size = 0
    with part.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                index = json.loads(line)["index"]
            except (ValueError, KeyError, TypeError):
                index = None
            if index != done or done == rows:
                raise DataError(
                    f"line {done + 1} of {part} is not row {done} of {rows}", fix="delete the file"
                )
            done, size = done + 1, size + len(line)
    return done, size
