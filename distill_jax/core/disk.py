"""A full disk, found in whatever exception it ended as, in one line."""

import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_jax.core.errors import DiskFullError, DistillError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TEXTS = ("No space left on device", "Disk quota exceeded")


def full(error: BaseException, directory: Path) -> DiskFullError | None:
    """The one-line error for an exception that a full disk caused, directly or not; else None.

    `directory`, where the program writes, is named when the exception names no file.
    """
    cause = _cause(error)
    if cause is None:
        return None
    named = getattr(cause, "filename", None)
    path = Path(named) if isinstance(named, str) else directory
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    return DiskFullError(
        f"the disk is full: {path}, {free / 1e6:.1f} MB free",
        fix="free some space; the same command goes on from the last checkpoint",
    )


class WithoutFullDisk(logging.Filter):
    """Drops log records about a full disk: orbax's threads log dozens, with tracebacks.

    Nothing is lost: the same failure reaches the main thread as an exception.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """False for such a record."""
        error = record.exc_info[1] if record.exc_info else None
        return _cause(error) is None and not any(x in record.getMessage() for x in _TEXTS)


def without_closed_loops(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """`sys.unraisablehook`, without the callbacks to an event loop that is closed.

    When a write fails, orbax closes its loop while tensorstore's other writes still call back.
    Nothing is lost: the failed write itself raises in the main thread. `hook` gets all else.
    """

    def passed_on(unraisable: Any) -> object:
        error = unraisable.exc_value
        if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
            return None
        return hook(unraisable)

    return passed_on


def _cause(error: BaseException | None) -> BaseException | None:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        # tensorstore's errors carry no number. Our own may quote a full disk of another process.
        if not isinstance(error, DistillError) and any(text in str(error) for text in _TEXTS):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
