"""A worker process: answers that need algebra, one after the other, each within a second.

Run by path with `python -I`. The process prepares everything once and then forks a child that
serves, confined as programs in the sandbox are; it passes requests on and kills the child when a
check takes too long, and the next fork goes on within milliseconds. Frames are a length and JSON:
in come [number, gold, predicted], out go [READY] once and then [number, verdict, reason] for each.
"""

import gc
import json
import logging
import os
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":  # by path, with -I: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from distill_jax.answers import library
from distill_jax.answers.algebra import Algebra
from distill_jax.answers.compare import compare
from distill_jax.answers.pool import LENGTH, READY, frame
from distill_jax.answers.single import UNDECIDED
from distill_jax.sandbox.confine import Confinement
from distill_jax.sandbox.filter import ARCHITECTURES

SECONDS = 1.0
MEMORY_BYTES = 1536 * 2**20
# Checks that fill caches before the fork.
_WARM = [
    (r"\frac{x^2-1}{x+1}", "x-1"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sin^2 x+\cos^2 x", "1"),
    (r"x^2+y^2=9", "2x^2+2y^2=18"), (r"\log_2 8 + e^{i\pi}", "2"), (r"10!", "3628800"),
]  # fmt: skip


def _read_exactly(descriptor: int, count: int) -> bytes:
    """So many bytes; fewer at the end of the stream."""
    found = b""
    while len(found) < count and (piece := os.read(descriptor, count - len(found))):
        found += piece
    return found


def read_frame(descriptor: int) -> list[str] | None:
    """The next frame, or None at the end."""
    head = _read_exactly(descriptor, LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(_read_exactly(descriptor, LENGTH.unpack(head)[0]))


def _serve(requests: int, replies: int, confinement: Confinement, parent: int) -> NoReturn:
    judge = Algebra()
    confinement.apply(parent)
    while (request := read_frame(requests)) is not None:
        _, gold, predicted = request
        try:
            finding = compare(gold, predicted, judge)
            reply = frame(finding.verdict, finding.reason[:200])
        except MemoryError:
            reply = frame(UNDECIDED, "out of memory")
        except RecursionError:
            reply = frame(UNDECIDED, "too deep")
        os.write(replies, reply)
    os._exit(0)


class _Child:
    """The serving child and its pipes."""

    def __init__(self) -> None:
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        # Numbers of the pipe's ends differ from fork to fork: the filter is made for this one.
        confinement = _confinement(replies)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.requests)
            os.close(self.replies)
            _serve(requests, replies, confinement, parent)
        os.close(requests)
        os.close(replies)

    def ask(self, request: list[str]) -> list[str] | None:
        """The reply; None where the child ended or took longer than SECONDS."""
        try:
            os.write(self.requests, frame(*request))
        except BrokenPipeError:
            return None
        if not select.select([self.replies], [], [], SECONDS)[0]:
            return None
        return read_frame(self.replies)

    def end(self) -> str:
        """Kills it; the reason why it gave no reply."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.requests)
        os.close(self.replies)
        if pid == 0:
            return f"longer than {SECONDS:g} s"
        return f"the check broke ({os.waitstatus_to_exitcode(status)})"


def _confinement(replies: int) -> Confinement:
    known = os.uname().machine in ARCHITECTURES
    return Confinement(memory_bytes=MEMORY_BYTES, write_fds=(replies,), filter=known)


def main() -> None:
    """Prepares, then serves until the host closes the pipe."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a host may ignore it, and that is inherited
    # Frames get descriptors of their own: what a library prints must not end up among them.
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    for gold, predicted in _WARM:
        compare(gold, predicted, Algebra())
    library.prepare()
    gc.collect()
    gc.freeze()
    os.write(replies, frame(READY))
    child = None
    while (request := read_frame(requests)) is not None:
        child = child or _Child()
        reply = child.ask(request)
        if reply is None:
            reply, child = [UNDECIDED, child.end()], None
        os.write(replies, frame(request[0], *reply))
    if child is not None:
        child.end()


if __name__ == "__main__":
    main()
