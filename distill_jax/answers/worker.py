"""A worker process: answers that need algebra, one after the other, each within a second.

Run by path with `python -I`. The process prepares everything once and then forks a child that
serves, confined as programs in the sandbox are; it passes requests on and kills the child when a
check takes too long, and the next fork goes on within milliseconds. In come [number, gold,
predicted], out go [READY] once and then [number, verdict, reason] for each. With the argument
"library" it prepares math-verify, too; without it the verdict of what needs that is NEEDS_LIBRARY.
"""

import gc
import logging
import os
import signal
import sys
import time
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

if __name__ == "__main__":  # by path, with -I: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distill_jax.answers import library
from distill_jax.answers.algebra import Algebra
from distill_jax.answers.compare import compare
from distill_jax.answers.pool import NEEDS_LIBRARY, NO_ANSWER, READY, receive, send
from distill_jax.answers.single import UNDECIDED
from distill_jax.sandbox.confine import Confinement
from distill_jax.sandbox.filter import ARCHITECTURES

SECONDS = 1.0  # of a processor: on a loaded machine a check is as good as on a quiet one
WALL_SECONDS = 8.0
MEMORY_BYTES = 1536 * 2**20
# Checks that fill caches before the fork.
_WARM = [
    (r"\frac{x^2-1}{x+1}", "x-1"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sin^2 x+\cos^2 x", "1"),
    (r"x^2+y^2=9", "2x^2+2y^2=18"), (r"\log_2 8 + e^{i\pi}", "2"), (r"10!", "3628800"),
]  # fmt: skip


def _serve(wire: Connection, confinement: Confinement, parent: int) -> None:
    judge = Algebra()
    confinement.apply(parent)
    while True:
        _, gold, predicted = receive(wire)
        try:
            finding = compare(gold, predicted, judge)
            reply = finding.verdict, finding.reason[:200]
        except MemoryError:
            reply = UNDECIDED, "out of memory"
        except RecursionError:
            reply = UNDECIDED, "too deep"
        except library.NotLoaded:
            reply = NEEDS_LIBRARY, ""
        send(wire, *reply)


class _Child:
    """The serving child and the connection to it."""

    late = f"longer than {SECONDS:g} s"

    def __init__(self) -> None:
        self.wire, theirs = Pipe()
        # Its number differs from fork to fork: the filter is made for this one.
        confinement = _confinement(theirs.fileno())
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.wire.close()
                _serve(theirs, confinement, parent)
            finally:
                os._exit(1)
        theirs.close()

    def ask(self, request: list[str]) -> list[str] | None:
        """The reply; None where the child ended or took too long, for `end` to say why."""
        try:
            send(self.wire, *request)
            begun, computed = time.monotonic(), self._computed()
            while not self.wire.poll(0.05):
                if self._computed() - computed > SECONDS:
                    return None
                if time.monotonic() - begun > WALL_SECONDS:
                    self.late = NO_ANSWER.reason  # the machine's doing: not cached
                    return None
            return receive(self.wire)
        except (EOFError, OSError):
            return None

    def _computed(self) -> float:
        """Seconds of a processor that the child took, or of the clock where no /proc tells."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> str:
        """Kills it; the reason why it gave no reply."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.wire.close()
        if pid == 0:
            return self.late
        return f"the check broke ({os.waitstatus_to_exitcode(status)})"


def _confinement(wire: int) -> Confinement:
    known = os.uname().machine in ARCHITECTURES
    return Confinement(memory_bytes=MEMORY_BYTES, write_fds=(wire,), filter=known)


def main() -> None:
    """Prepares, then serves until the host closes the pipe."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a host may ignore it, and that is inherited
    # A separate descriptor, so that text printed by a library is not read as a reply.
    host = Connection(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    for gold, predicted in _WARM:
        compare(gold, predicted, Algebra())
    library.deferred = "library" not in sys.argv
    if not library.deferred:
        library.prepare()
    gc.collect()
    gc.freeze()
    child = None
    try:
        send(host, READY)
        while True:
            request = receive(host)
            child = child or _Child()
            reply = child.ask(request)
            if reply is None:
                reply, child = [UNDECIDED, child.end()], None
            send(host, request[0], *reply)
    except (EOFError, OSError):  # the host has gone
        if child is not None:
            child.end()


if __name__ == "__main__":
    main()
