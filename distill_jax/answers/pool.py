"""Worker processes on the host's side: started on first need, with a deadline, replaced when dead.

Safe from any thread and inside event loops; a forked child of the host gets its own workers.
"""

import atexit
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distill_jax.answers.single import UNDECIDED, Finding
from distill_jax.core.errors import DistillError

START_SECONDS = 120.0
DEADLINE_SECONDS = 2.5  # the worker gives up after one; this is for a machine that stands still
STOP_SECONDS = 1.5
MAX_WORKERS = 4


# From a worker that was killed or delayed: not cached, since the pair may succeed next time.
NO_ANSWER = Finding(UNDECIDED, "the worker gave no answer")


# A frame between host and worker is a length and a JSON list of texts.
READY = "ready"
LENGTH = struct.Struct("<I")


def frame(*texts: str) -> bytes:
    """A frame as bytes; small ones are written in one piece."""
    body = json.dumps(texts).encode()
    return LENGTH.pack(len(body)) + body


class WorkerError(DistillError, RuntimeError):
    """No worker process could be started."""


class _NoAnswer(Exception):
    """The process ended, or the deadline passed."""


class Worker:
    """One process; used by one thread at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def judge(self, gold: str, predicted: str) -> Finding:
        """The verdict of the process, or undecided where it broke or took too long.

        Raises:
            WorkerError: it did not start.
        """
        process = self._started()
        assert process.stdin is not None
        self._asked += 1
        number, answered = str(self._asked), False
        try:
            os.write(process.stdin.fileno(), frame(number, gold, predicted))
            echo, verdict, reason = self._read(time.monotonic() + DEADLINE_SECONDS)
            answered = echo == number
        except (_NoAnswer, BrokenPipeError):
            return NO_ANSWER
        finally:
            # After any interruption, a signal handler of the host included, a late reply must not
            # be taken for the next one.
            if not answered:
                self.stop(patience=0.1)
        return Finding(verdict, reason)

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.stop()
        path = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # Ctrl-C is the host's
        )
        ready, said = False, "another greeting"
        try:
            ready = self._read(time.monotonic() + START_SECONDS) == [READY]
        except _NoAnswer:
            self.process.kill()
            assert self.process.stderr is not None
            said = self.process.stderr.read().decode(errors="replace").strip()[-500:]
        finally:
            if not ready:
                self.stop()
        if self.process is not None:
            return self.process
        raise WorkerError(
            f"a worker for checking answers did not start: {said}",
            fix=f"try {sys.executable} -c 'import mpmath'",
        )

    def _read(self, deadline: float) -> list[str]:
        head = self._read_bytes(LENGTH.size, deadline)
        return json.loads(self._read_bytes(LENGTH.unpack(head)[0], deadline))

    def _read_bytes(self, count: int, deadline: float) -> bytes:
        assert self.process is not None and self.process.stdout is not None
        waiting = select.poll()  # select has no descriptors above 1,023
        waiting.register(self.process.stdout, select.POLLIN)
        found = b""
        while len(found) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1e3):
                raise _NoAnswer
            piece = os.read(self.process.stdout.fileno(), count - len(found))
            if not piece:
                raise _NoAnswer
            found += piece
        return found

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """Kills the process and its child; harmless where there is none.

        Args:
            patience: seconds that it may take to end its child, and itself.
        """
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the end of the requests: it ends its child, and itself
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


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
