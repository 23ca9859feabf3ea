"""Worker processes on the host's side: started on first need, with a deadline, replaced when dead.

Safe from any thread and inside event loops; a forked child of the host gets its own workers.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from distill_jax.answers.single import UNDECIDED, Finding
from distill_jax.core.errors import DistillError

START_SECONDS = 120.0
DEADLINE_SECONDS = 10.0  # the worker gives up before; this is for one that stands still
STOP_SECONDS = 1.5
MAX_WORKERS = 4
READY, NEEDS_LIBRARY = "ready", "needs the library"

# From a worker that was killed or delayed: not cached, since the pair may succeed next time.
NO_ANSWER = Finding(UNDECIDED, "the worker gave no answer")


class WorkerError(DistillError, RuntimeError):
    """No worker process could be started."""


def send(wire: Connection, *texts: str) -> None:
    """Sends a JSON list of texts; small ones are written in one piece."""
    wire.send_bytes(json.dumps(texts).encode())


def receive(wire: Connection, seconds: float | None = None) -> list[str]:
    """The next list of texts; None waits without end.

    Raises:
        EOFError, OSError: the other side closed the connection, or the time is over.
    """
    if seconds is not None and not wire.poll(seconds):  # a confined child may not poll
        raise TimeoutError
    return json.loads(wire.recv_bytes())


class Worker:
    """One process; used by one thread at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._asked, self._options = 0, list[str]()

    def judge(self, gold: str, predicted: str) -> Finding:
        """The verdict of the process, or undecided where it broke or took too long.

        Raises:
            WorkerError: it did not start.
        """
        found = self._ask(gold, predicted)
        if found.verdict == NEEDS_LIBRARY:  # a second to import, and few answers need it
            self.stop()
            self._options = ["library"]
            found = self._ask(gold, predicted)
        return found

    def _ask(self, gold: str, predicted: str) -> Finding:
        self._start()
        self._asked += 1
        number, answered = str(self._asked), False
        try:
            send(self._wire, number, gold, predicted)
            echo, verdict, reason = receive(self._wire, DEADLINE_SECONDS)
            answered = echo == number
        except (EOFError, OSError):
            return NO_ANSWER
        finally:
            # After any interruption, a signal handler of the host included, a late reply must not
            # be taken for the next one.
            if not answered:
                self.stop(patience=0.1)
        return Finding(verdict, reason)

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        self._wire, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("worker.py")), *self._options],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                start_new_session=True,  # Ctrl-C is the host's
            )
        ready, said = False, "another greeting"
        try:
            ready = receive(self._wire, START_SECONDS) == [READY]
        except (EOFError, OSError):
            self.process.kill()
            assert self.process.stderr is not None
            said = self.process.stderr.read().decode(errors="replace").strip()[-500:]
        finally:
            if not ready:
                self.stop()
        if not ready:
            raise WorkerError(
                f"a worker for checking answers did not start: {said}",
                fix=f"try {sys.executable} -c 'import mpmath'",
            )

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """Ends the process and its child, kills them after `patience` seconds; harmless without."""
        process, self.process = self.process, None
        if process is None:
            return
        self._wire.close()  # the end of the requests: it ends its child, and itself
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


class Pool:
    """Workers shared by all threads of one process."""

    def __init__(self, workers: int):
        self.workers = [Worker() for _ in range(workers)]
        self.pid = os.getpid()
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    def judge(self, gold: str, predicted: str) -> Finding:
        """One verdict; waits for a free worker."""
        worker = self._idle.get()
        try:
            return worker.judge(gold, predicted)
        finally:
            self._idle.put(worker)

    def judge_all(self, pairs: Sequence[tuple[str, str]]) -> list[Finding]:
        """Verdicts in order, over all workers at once."""
        if len(pairs) < 2:
            return [self.judge(*pair) for pair in pairs]
        with ThreadPoolExecutor(min(len(pairs), len(self.workers))) as threads:
            return list(threads.map(lambda pair: self.judge(*pair), pairs))

    def close(self) -> None:
        """Ends the processes; the next check starts them again."""
        if self.pid == os.getpid():
            for worker in self.workers:
                worker.stop()


_pool: Pool | None = None
_lock = threading.Lock()


def shared_pool() -> Pool:
    """The process's pool: one worker a core, at most MAX_WORKERS, none started before needed."""
    global _pool
    with _lock:
        if _pool is None or _pool.pid != os.getpid():
            # The parent's workers are not used: a fork shares their pipes.
            _pool = Pool(min(os.cpu_count() or 1, MAX_WORKERS))
            atexit.register(_pool.close)
        return _pool
