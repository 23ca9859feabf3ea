"""The process's sandboxes, one for each set of limits."""

import atexit
import os
import threading

from distill_jax.sandbox.limits import Limits
from distill_jax.sandbox.pool import Sandbox

# At most, where a caller gives no number; `pool.MOST_WORKERS` is the most that it may give.
DEFAULT_WORKERS = 16

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


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
