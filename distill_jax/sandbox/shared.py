"""The process's sandboxes, one for each set of limits, and batches that end at a deadline."""

import atexit
import os
import threading
import time
from collections.abc import Sequence
from typing import Literal

from distill_jax.sandbox.limits import Limits, Result, SandboxError
from distill_jax.sandbox.pool import Sandbox

# At most, where a caller gives no number; `pool.MOST_WORKERS` is the most that it may give.
DEFAULT_WORKERS = 16

# Why a program has no result: the deadline came first, or the machine lost it twice.
Missing = Literal["late", "lost"]

_sandboxes: dict[tuple[int, Limits, int], Sandbox] = {}
_lock = threading.Lock()


def shared(limits: Limits, workers: int = 0) -> Sandbox:
    """The process's sandbox with these limits, started at the first call.

    0 workers: one a core, at most DEFAULT_WORKERS. A forked child gets its own.

    Raises:
        SandboxError: this machine cannot hold programs.
    """
    workers = workers or min(_cores(), DEFAULT_WORKERS)
    key = (os.getpid(), limits, workers)
    with _lock:
        if key not in _sandboxes:
            _sandboxes[key] = Sandbox(workers, limits)
        return _sandboxes[key]


def close_shared() -> None:
    """Ends the process's sandboxes; the next call of `shared` starts one again."""
    with _lock:
        while _sandboxes:
            _sandboxes.popitem()[1].close()  # of a parent's sandbox this ends nothing


atexit.register(close_shared)


def run_until(
    sandbox: Sandbox, programs: Sequence[str], deadline_s: float
) -> list[Result | Missing]:
    """Runs programs on all workers for at most `deadline_s` seconds.

    What still runs then ends at its own limits, unread, while the caller goes on. A worker that is
    lost costs its program alone.

    Returns:
        One a program, in order: its result, "late" where the deadline came first, or "lost".

    Raises:
        TypeError: a program is no str; none is started.
    """
    for program in programs:
        if not isinstance(program, str):
            raise TypeError(f"a program is {type(program).__name__}, wanted str")
    end = time.monotonic() + deadline_s
    found: list[Result | Missing] = ["late"] * len(programs)
    places = iter(range(len(programs)))  # next() of it is atomic
    over = threading.Event()

    def work() -> None:
        for place in places:
            if over.is_set():
                return
            try:
                found[place] = sandbox.run(programs[place])
            except (SandboxError, OSError):
                found[place] = "lost"

    count = min(sandbox.workers, len(programs))
    threads = [threading.Thread(target=work, name="programs", daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    finally:
        over.set()
    return list(found)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
