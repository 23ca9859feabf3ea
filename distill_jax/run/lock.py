"""A lock on a work directory or file: one process writes there at a time.

The lock is the kernel's (flock on a file), so it ends with its process, also after kill -9. The
text in the file only names the holder; it is never read to decide whether the lock is free.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_jax.core.errors import BusyError, DataError

# File systems without locks, e.g. some network mounts, answer with these.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def lock_file(path: Path) -> Path:
    """DIRECTORY/.lock, or for a file, which need not exist, FILE.lock next to it."""
    return path / ".lock" if path.is_dir() else path.with_name(path.name + ".lock")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock of a directory or file for the job that this process belongs to.

    Process 0 of a multi-process job takes the lock; every process must enter.

    Raises:
        BusyError: another job holds it; raised in every process of this job.
        DataError: no file can be written there.
    """
    with contextlib.ExitStack() as stack:
        problem: BusyError | DataError | None = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(held_here(path))
            except (BusyError, DataError) as error:
                problem = error
        if jax.process_count() > 1:
            busy = multihost_utils.broadcast_one_to_all(np.asarray(problem is not None))
            if busy and problem is None:
                problem = BusyError(f"{path} cannot be held", fix="see the message of process 0")
        if problem is not None:
            raise problem
        yield


@contextlib.contextmanager
def held_here(path: Path) -> Iterator[None]:
    """Holds the lock for this process alone; starts no JAX.

    Raises:
        BusyError: another process holds it.
        DataError: no file can be written there.
    """
    file = lock_file(path)
    number = _acquire(path, file)
    try:
        yield
    finally:
        # Removed while held: whoever opened it before finds that it is no longer the file.
        if _still_there(number, file):
            file.unlink()
        os.close(number)


def _acquire(path: Path, file: Path) -> int:
    """The open and locked file; the lock ends when it is closed."""
    while True:
        number = _open(file)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(number, 1000, 0).decode(errors="replace").strip()
            os.close(number)
            raise BusyError(
                f"{path} is in use by {holder or 'another process'}",
                fix="wait until it ends or stop it, or use another directory or file",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(number)
                raise
            said = f"warning: {file} cannot be locked ({error.strerror})"
            print(f"{said}: start no second process there", file=sys.stderr)
        if _still_there(number, file):
            break
        os.close(number)  # its holder removed it between open and flock
    os.ftruncate(number, 0)
    os.pwrite(number, _holder().encode(), 0)
    return number


def _open(file: Path) -> int:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise DataError(f"cannot write {file}: {error.strerror}", fix="choose another") from error


def _still_there(number: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(file))
    except FileNotFoundError:
        return False


def _holder() -> str:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
