"""Asked to stop: SIGTERM and SIGINT become a flag that is looked at between pieces of work."""

import os
import signal
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_jax.core.errors import EXIT_INTERRUPTED, DistillError

_STANDARD_ERROR = 2


GO_ON = "run the same command again to go on"


class Interrupted(DistillError):
    """The run was asked to stop, and what it has done is saved.

    `exit_code` is 0 after SIGTERM, a scheduler's request that was met, and 130 after Ctrl-C.
    """

    exit_code = 0


class StopSignal:
    """Turns SIGTERM and SIGINT into a flag, while entered.

    A second SIGINT stops at once. `exit_code` is that of the process. In a multi-process run a
    request to one process stops all, and so does a pod's notice of preemption.
    """

    def __init__(self) -> None:
        self.asked = False
        self.exit_code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        # Signals can be caught in the main thread alone; elsewhere the caller owns them.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else 0
        again = ", Ctrl-C again stops at once" if number == signal.SIGINT else ""
        # Not print: a handler may find standard error's buffer in the middle of a write.
        os.write(_STANDARD_ERROR, f"\nstopping after this step{again}\n".encode())

    def due(self, step: int) -> bool:
        """Whether to stop now; the same answer in every process, which all must ask.

        step: grows from call to call within a piece of work.
        """
        if jax.process_count() == 1:
            return self.asked
        asked = self.asked or multihost_utils.reached_preemption_sync_point(step)
        self.asked = bool(multihost_utils.process_allgather(np.asarray(asked)).any())
        return self.asked

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, Interrupted):
            error.exit_code = self.exit_code
        for number, handler in self._before.items():
            signal.signal(number, handler)
