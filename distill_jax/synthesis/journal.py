"""Attempts and raw responses on disk: append-only, so that nothing that was paid for is lost.

`responses.jsonl` holds {"key", "try", "raw"}, the body of each response of status 200 as it came;
`attempts.jsonl` {"key", "try", "t_start", "t_end", "status", "class", "retry_after", "usage",
"message"} for every attempt, and {"aborted"} where the stage stopped for failures. A response is
written before its attempt, and both before anything is decided.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.synthesis import failures
from distill_jax.synthesis.failures import Response

RESPONSES, ATTEMPTS = "responses.jsonl", "attempts.jsonl"


class Attempt(NamedTuple):
    """One attempt of a request.

    Attributes:
        status: HTTP status; None where there was none.
        kind: one of `failures.CLASSES`.
        retry_after: seconds that the endpoint asked to wait.
        message: of an error, without the key.
    """

    t_start: float
    t_end: float
    status: int | None
    kind: str
    retry_after: float | None = None
    message: str = ""


class History(NamedTuple):
    """What is known of a request: classes of its attempts in order, and its last response."""

    kinds: tuple[str, ...] = ()
    response: Response | None = None


class Lines:
    """An append-only JSONL file. A torn last line, of a process that was killed, is dropped.

    Raises:
        DataError: a damaged line other than the last.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Mapping[str, Any]] = []
        raw = path.read_bytes() if path.exists() else b""
        self._size = raw.rfind(b"\n") + 1
        for number, line in enumerate(raw[: self._size].splitlines(), 1):
            try:
                self.rows.append({**json.loads(line)})
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number}: {error}", wanted="a record", fix="delete the line"
                ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(raw) > self._size:
            os.truncate(path, self._size)

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes a line; it is on disk when this returns.

        Raises:
            OSError: it cannot be written, e.g. the disk is full; the file is as it was before.
        """
        line = (json.dumps(row, separators=(",", ":")) + "\n").encode("ascii")
        try:
            with self.path.open("ab") as handle:
                handle.write(line)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError:
            # Part of the line may be there, and a later one must not be joined to it.
            if self.path.exists():
                os.truncate(self.path, self._size)
            raise
        self._size += len(line)


class Journal:
    """The attempts and responses of a directory.

    Args:
        directory: made where it is missing. One process at a time may hold it.

    Raises:
        DataError: a damaged line.
    """

    def __init__(self, directory: Path):
        self._responses = Lines(directory / RESPONSES)
        self._attempts = Lines(directory / ATTEMPTS)
        found: dict[str, dict[int, Response]] = defaultdict(dict)
        for row in self._take(self._responses, ("key", "try", "raw")):
            found[row["key"]][row["try"]] = failures.read(row["raw"])
        self._found = found
        tried: dict[str, dict[int, str]] = defaultdict(dict)
        for row in self._take(self._attempts, ()):
            if "aborted" in row:  # what failed so far may be tried again in full
                tried.clear()
            else:
                tried[row["key"]][row["try"]] = row["class"]
        self._tried = tried

    def history(self, key: str) -> History:
        """What is known of a request.

        A response without its attempt counts: the process ended between the two writes. Attempts
        before an abort do not, responses do.
        """
        answered = {n: r for n, r in self._found.get(key, {}).items() if r.kind != "malformed"}
        kinds = {**self._tried.get(key, {}), **{n: one.kind for n, one in answered.items()}}
        last = answered[max(answered)] if answered else None
        return History(tuple(kinds[number] for number in sorted(kinds)), last)

    def responses(self, key: str) -> list[Response]:
        """All responses to a request, those of no use included: each was paid for."""
        return list(self._found.get(key, {}).values())

    def add(self, key: str, attempt: Attempt, raw: str | None) -> Response | None:
        """Records an attempt, its raw response first; returns the response as read.

        Raises:
            OSError: it cannot be written.
        """
        used = [*self._tried.get(key, {}), *self._found.get(key, {})]
        number = max(used, default=0) + 1
        response = None
        if raw is not None:
            self._responses.append({"key": key, "try": number, "raw": raw})
            response = self._found[key][number] = failures.read(raw)
        kind = attempt.kind if response is None else response.kind
        usage = response.usage if response is not None else None
        self._attempts.append(
            {
                "key": key,
                "try": number,
                "t_start": round(attempt.t_start, 3),
                "t_end": round(attempt.t_end, 3),
                "status": attempt.status,
                "class": kind,
                "retry_after": attempt.retry_after,
                "usage": None if usage is None else usage._asdict(),
                **({"message": attempt.message} if attempt.message else {}),
            }
        )
        self._tried[key][number] = kind
        return response

    def abort(self, why: str) -> None:
        """Records that the stage stopped for failures: the next start tries them again in full."""
        self._attempts.append({"aborted": why})
        self._tried.clear()

    @staticmethod
    def _take(lines: Lines, names: tuple[str, ...]) -> list[Mapping[str, Any]]:
        rows, lines.rows = lines.rows, []  # once read they only take memory
        for number, row in enumerate(rows, 1):
            wanted = names or (() if "aborted" in row else ("key", "try", "class"))
            if any(name not in row for name in wanted):
                raise DataError(
                    f"{lines.path}, line {number}: columns {', '.join(row) or 'none'}",
                    wanted=", ".join(wanted),
                    fix="delete the line",
                )
        return rows
