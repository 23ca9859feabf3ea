"""Counts the programs that XLA compiles, and their seconds."""

import contextlib
from collections.abc import Callable
from typing import Any

from jax import monitoring

# Of each program, also of one that is read from the cache on disk.
_EVENT = "/jax/core/compile/backend_compile_duration"


class Compilations(contextlib.AbstractContextManager["Compilations"]):
    """While entered, counts compiled programs of all threads of this process."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._listener: Callable[..., None] = self._note

    def _note(self, event: str, seconds: float, **_: Any) -> None:
        if event == _EVENT:
            self._seconds.append(seconds)

    def __enter__(self) -> "Compilations":
        monitoring.register_event_duration_secs_listener(self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        monitoring.unregister_event_duration_listener(self._listener)

    def take(self) -> tuple[int, float]:
        """(programs, their seconds) since the last call."""
        taken, self._seconds = self._seconds, []
        return len(taken), sum(taken)
