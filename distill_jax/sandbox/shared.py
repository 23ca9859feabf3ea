"""The process's sandboxes, one for each set of limits, and programs in the background."""

import atexit
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from distill_jax.sandbox.limits import Limits, Result, SandboxError
from distill_jax.sandbox.pool import Sandbox

# At most, where a caller gives no number; `pool.MOST_WORKERS` is the most that it may give.
DEFAULT_WORKERS = 16

# Stands for the result of a program that the machine lost twice.
Lost = Literal["lost"]

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


def start(sandbox: Sandbox, programs: Sequence[str]) -> list[Future[Result | Lost]]:
    """Starts programs on all workers and returns at once: a future of each, in order.

    One whose future is cancelled before its turn does not run. What runs ends at its own limits. A
    worker that is lost costs its program alone.

    Raises:
        TypeError: a program is no str; none is started.
    """
    for program in programs:
        if not isinstance(program, str):
            raise TypeError(f"a program is {type(program).__name__}, wanted str")
    futures = [Future[Result | Lost]() for _ in programs]
    pairs = iter(zip(programs, futures, strict=True))  # next() of it is atomic

    def work() -> None:
        for program, future in pairs:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(sandbox.run(program))
            except (SandboxError, OSError):
                future.set_result("lost")

    for _ in range(min(sandbox.workers, len(programs))):
        threading.Thread(target=work, name="programs", daemon=True).start()
    return futures


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
