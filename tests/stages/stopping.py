"""SIGTERM in the middle of a stage's training."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from distill_jax.run.stop import Interrupted


@contextlib.contextmanager
def sigterm(steps: type, at: int, said: str) -> Iterator[None]:
    """Expects Interrupted with a message that matches `said`.

    steps: the class whose calls are the stage's steps; the signal comes in step `at`.
    """
    real: Any = steps.__call__

    def stopping(self: Any, state: Any, step: int) -> Any:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "__call__", stopping)
        with pytest.raises(Interrupted, match=said):
            yield
