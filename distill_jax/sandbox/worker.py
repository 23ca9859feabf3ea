"""One worker: a zygote of each kind, replaced when lost; one program at a time."""

import itertools
import threading

from distill_jax.sandbox import canaries, frames
from distill_jax.sandbox.limits import Layers, Limits, Result, SandboxError
from distill_jax.sandbox.process import Zygote, ZygoteLost

GRACE_S = 10.0  # beyond the wall limit, for a machine that is busy
LIGHT, SYMPY = "light", "sympy"


class Worker:
    """Up to one zygote of each kind; one program at a time."""

    def __init__(self, limits: Limits, layers: Layers, start_timeout_s: float):
        self._limits, self._layers = limits, layers
        self._start_timeout_s = start_timeout_s
        self._zygotes: dict[str, Zygote] = {}
        # Reentrant: a signal handler may close the sandbox inside a running call of its thread.
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._ending = False
        self._interrupted = False

    def spawn(self, kind: str) -> None:
        """Starts the process, and does not wait."""
        self._zygotes[kind] = Zygote(kind, self._limits, self._layers)
        if self._ending:
            self._zygotes[kind].hang_up()

    def ready(self, kind: str) -> None:
        """Waits for it and lets the canaries try."""
        try:
            self._zygotes[kind].await_ready(self._start_timeout_s)
            canaries.check(
                lambda program: self._exchange(kind, program.encode(), frames.SKIP_SYNTAX),
                self._limits,
                self._layers,
            )
        except ZygoteLost as error:
            raise SandboxError(
                f"the {kind} zygote was lost at its start: {error}",
                fix="more start_timeout_s where the machine is slow",
            ) from error

    def run(self, program: bytes) -> Result:
        """Runs the program, once more where the zygote was lost."""
        kind = SYMPY if b"sympy" in program else LIGHT
        flags = 0 if self._layers.syntax else frames.SKIP_SYNTAX
        with self._lock:
            self._interrupted = False
            try:
                return self._run(kind, program, flags)
            except ZygoteLost:
                if self._ending or self._interrupted:
                    raise
                return self._run(kind, program, flags)

    def _run(self, kind: str, program: bytes, flags: int) -> Result:
        whole = False
        try:
            if kind not in self._zygotes:
                self.spawn(kind)
                self.ready(kind)
            result = self._exchange(kind, program, flags)
            whole = True
            return result
        finally:
            # After any interruption, even by a signal handler of the host, the next reply on this
            # socket would be another program's.
            if not whole and kind in self._zygotes:
                self._zygotes.pop(kind).close()

    def _exchange(self, kind: str, program: bytes, flags: int) -> Result:
        timeout_s = self._limits.wall_s + GRACE_S
        number = next(self._numbers)
        return _result(self._zygotes[kind].exchange(number, flags, program, timeout_s))

    def interrupt(self) -> None:
        """Ends the running program, from any thread; its call gets ZygoteLost. Another may run."""
        self._interrupted = True
        for zygote in list(self._zygotes.values()):
            zygote.hang_up()

    def hang_up(self) -> None:
        """Ends its zygotes for good, from any thread."""
        self._ending = True
        self.interrupt()

    def close(self) -> None:
        """Ends its zygotes after the running call has returned."""
        self.hang_up()
        with self._lock:
            while self._zygotes:
                self._zygotes.popitem()[1].close()


def _result(found: frames.Outcome) -> Result:
    _, status, reason = frames.CAUSES[found.cause]
    stdout, stderr = (str(text, "utf-8", "replace") for text in (found.out, found.err))
    if reason:
        code = f" (signal {-found.rc})" if found.rc < 0 and status == "error" else ""
        stderr += f"[sandbox] {reason}{code}\n"
    measured = found.wall_ms, found.cpu_s, found.rss, found.rc
    return Result(status, stdout, stderr, *measured)  # type: ignore[arg-type]
