"""The sandbox as its users see it: programs in, results out, over several workers."""

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Self

from distill_jax.core.errors import ConfigError
from distill_jax.sandbox.limits import Layers, Limits, Result, SandboxError
from distill_jax.sandbox.probe import probe
from distill_jax.sandbox.process import ZygoteLost
from distill_jax.sandbox.worker import LIGHT, Worker

MOST_WORKERS = 1024


class Sandbox:
    """Runs programs in confined processes. Thread-safe; ends with `close` or the `with` block.

    Each worker has a light zygote, started here, and one with sympy, started at its first program
    that says "sympy" (some two seconds, not counted in any limit).

    Args:
        workers: programs at a time; one per free core.
        limits: of each program.
        layers: for tests only.
        allow_partial: run although this machine has no seccomp, with limits and policy only.
        start_timeout_s: for a zygote to load and pass its canaries.

    Raises:
        ConfigError: no workers.
        SandboxError: this machine cannot hold programs, or a canary got through.
    """

    def __init__(
        self,
        workers: int = 1,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        layers: Layers = Layers(),  # noqa: B008 - frozen
        allow_partial: bool = False,
        start_timeout_s: float = 120.0,
    ):
        if not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
            raise ConfigError(f"workers={workers!r}", wanted=f"1 to {MOST_WORKERS}")
        if not isinstance(limits, Limits):
            raise ConfigError(f"limits is a {type(limits).__name__}", wanted="Limits(...)")
        layers = possible_layers(layers, allow_partial)
        self._process = os.getpid()
        self._limits = limits
        self._closed = False
        self._closing = threading.Lock()
        self._workers = [Worker(limits, layers, start_timeout_s) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._waiting: deque[tuple[str, Future[Result]]] = deque()  # of `start`, and its threads
        self._starting, self._threads = threading.Lock(), 0
        with contextlib.ExitStack() as failed:
            for worker in self._workers:
                failed.callback(worker.close)
                worker.spawn(LIGHT)
            for worker in self._workers:
                worker.ready(LIGHT)
                self._idle.put(worker)
            failed.pop_all()

    @property
    def workers(self) -> int:
        """Programs that run at a time."""
        return len(self._workers)

    def run(self, program: str) -> Result:
        """Runs one program; blocks until it has ended or was ended.

        Raises:
            SandboxError: the sandbox is closed, was made in another process, or lost two zygotes
                over this program. That is the machine's failure; the program may be run again.
        """
        self._check_open()
        _check_text(program)
        raw = program.encode("utf-8", "surrogatepass")
        if len(raw) > self._limits.program_bytes:
            most = self._limits.program_bytes
            text = f"the program has {len(raw)} bytes; wanted: at most {most}; fix: write less"
            return Result("rejected", "", text, 0.0, 0.0, 0, None)
        worker = None
        try:
            # Not `worker = self._idle.get()`: Python runs signal handlers after a call and before
            # it stores what came back; one that raises there would lose the worker for good.
            for worker in iter(self._idle.get, None):  # noqa: B007
                self._check_open()
                return worker.run(raw)
            raise AssertionError("nobody puts None")
        except SandboxError:
            self._check_open()  # that it was closed says more
            raise
        except ZygoteLost as error:
            self._check_open()
            raise SandboxError(
                f"two zygotes were lost over one program: {error}",
                fix="look for what kills processes on this machine, such as a lack of memory",
            ) from error
        finally:
            if worker is not None:
                self._idle.put(worker)

    def run_batch(self, programs: Iterable[str]) -> list[Result]:
        """Runs programs on all workers at once.

        Returns:
            One result each, in the programs' order.

        Raises:
            SandboxError: as `run`; no further program is started then.
            TypeError: one of them is no str; none is started.
        """
        if isinstance(programs, str):
            raise TypeError("programs is one str, wanted a list of them")
        todo = list(programs)
        for program in todo:
            _check_text(program)
        results: list[Result | None] = [None] * len(todo)
        failures: list[Exception] = []
        indices = iter(range(len(todo)))  # next() of it is atomic

        def work() -> None:
            for i in indices:
                if failures:
                    return
                try:
                    results[i] = self.run(todo[i])
                except (SandboxError, OSError) as error:
                    failures.append(error)

        count = min(len(self._workers), len(todo))
        threads = [threading.Thread(target=work, name="sandbox") for _ in range(count - 1)]
        for thread in threads:
            thread.start()
        try:
            work()
        except BaseException:
            failures.append(SandboxError("interrupted"))  # the others must not go on
            for worker in self._workers:
                worker.interrupt()
            raise
        finally:
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        found = [result for result in results if result is not None]
        if len(found) < len(todo):  # a thread ended by what nobody foresaw must not shift the rest
            raise SandboxError(f"{len(todo) - len(found)} of {len(todo)} programs were not run")
        return found

    def start(self, programs: Sequence[str]) -> list[Future[Result]]:
        """Starts programs and returns at once: a future of each, in order, with what `run` does.

        They take turns with those that were started before. One whose future is cancelled before
        its turn does not run.

        Raises:
            TypeError: a program is no str; none is started.
        """
        for program in programs:
            _check_text(program)
        futures = [Future[Result]() for _ in programs]
        with self._starting:
            self._waiting.extend(zip(programs, futures, strict=True))
            more = min(len(self._workers) - self._threads, len(futures))
            self._threads += more
        for _ in range(more):
            threading.Thread(target=self._work, name="programs", daemon=True).start()
        return futures

    def _work(self) -> None:
        """Runs what waits, until nothing does."""
        while True:
            with self._starting:
                if not self._waiting:
                    self._threads -= 1
                    return
                program, future = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self.run(program))
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                future.set_exception(error)

    def close(self) -> None:
        """Ends every process; running calls raise SandboxError. May be called again."""
        if self._process != os.getpid():
            return  # a fork of the host: the processes are the host's
        self._closed = True
        with self._closing:
            for worker in self._workers:
                worker.hang_up()
            for worker in self._workers:
                worker.close()

    def __enter__(self) -> Self:
        """The sandbox itself, which has been started."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxError("the sandbox is closed", fix="make a new one")
        if self._process != os.getpid():
            raise SandboxError(
                "the sandbox was made before this process was forked",
                fix="make one in each process",
            )


def _check_text(program: object) -> None:
    if not isinstance(program, str):
        raise TypeError(f"a program is {type(program).__name__}, wanted str")


def possible_layers(layers: Layers, allow_partial: bool) -> Layers:
    """The layers that this machine has; nothing is started.

    Raises:
        SandboxError: it cannot hold programs.
    """
    found = probe()
    if found.level == "full":
        return layers
    if found.level == "none" or not allow_partial:
        reasons = "; ".join(f"{k}: {why}" for k, (works, why) in found.layers.items() if not works)
        raise SandboxError(
            f"this machine can hold programs only in part ({found.level}: {reasons})",
            wanted="Linux with seccomp on x86_64 or aarch64",
            fix="allow_partial=True, if you trust the programs",
        )
    return replace(layers, filter=False)
