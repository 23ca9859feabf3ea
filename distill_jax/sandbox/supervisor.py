"""Forks one child per program and watches it: deadlines, output, how it ended, that it is gone.

Runs in the zygote. The verdict comes from wait4 and from what is measured here.
"""

import mmap
import os
import signal
import sys
import time
from typing import NamedTuple

from distill_jax.sandbox import child, frames
from distill_jax.sandbox.confine import Confinement
from distill_jax.sandbox.watch import HostGone, Watch

IDLE_MS = 500  # at most so long until the host's end is noticed by other means than its pipe
CPU_STEP_S = 0.002  # the finest step in which CPU time is looked at
CLEANING_S = 1.0  # for descendants, which exist only where a layer was taken away


class Rules(NamedTuple):
    """What the host asked for at the start of this zygote."""

    wall_s: float
    cpu_s: float
    output_bytes: int
    program_bytes: int


class Supervisor:
    """Runs programs one at a time.

    Programs and their output stay in pages that a fork does not copy (MADV_DONTFORK), so that no
    child can find another's program or output in its own memory. Each child applies the confinement
    to itself; that `host`, the descriptor of the requests, hangs up ends everything.
    """

    def __init__(self, host: int, rules: Rules, confinement: Confinement):
        self._host, self._rules, self._confinement = host, rules, confinement
        self._parent = os.getppid()
        self._caps = (rules.output_bytes, rules.output_bytes + child.OWN_BYTES)
        sizes = [cap + 1 for cap in self._caps]  # one more, so that too much is seen
        pages = mmap.mmap(-1, rules.program_bytes + sum(sizes))
        if hasattr(mmap, "MADV_DONTFORK"):
            pages.madvise(mmap.MADV_DONTFORK)
        view = memoryview(pages)
        self.program = view[: rules.program_bytes]
        outputs = view[rules.program_bytes :]
        self._buffers = [outputs[: sizes[0]], outputs[sizes[0] :]]

    def check_host(self) -> None:
        """Raises HostGone where another process has become the parent."""
        if os.getppid() != self._parent:
            raise HostGone

    def run(self, length: int, syntax: bool) -> frames.Outcome:
        """Runs the first `length` bytes of `program`; the output is in this object's buffers.

        Raises:
            HostGone: the host ended meanwhile; the child has been killed.
        """
        start = time.monotonic()
        program_r, program_w = os.pipe()
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        own = os.getpid()
        pid = os.fork()
        if pid == 0:
            child.run(self._confinement, own, (program_r, out_w, err_w), syntax)
        for fd in (program_r, out_w, err_w):
            os.close(fd)
        program = self.program[:length]
        watch = Watch(pid, self._host, program, program_w, (out_r, err_r), self._buffers)
        try:
            cause = self._watch(watch, start)
        finally:
            kill(pid)
            _, status, usage = os.wait4(pid, 0)
            clear_descendants()
            watch.drain()
            watch.close()
        cpu_s = usage.ru_utime + usage.ru_stime
        rc = os.waitstatus_to_exitcode(status)
        if not cause and self._too_much(watch):
            cause = "output"
        return frames.Outcome(
            frames.CODE[cause or _cause_of(rc, cpu_s, self._rules.cpu_s)],
            rc,
            (time.monotonic() - start) * 1e3,
            cpu_s,
            usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            self._buffers[0][: min(watch.filled[0], self._caps[0])],
            self._buffers[1][: min(watch.filled[1], self._caps[1])],
        )

    def _watch(self, watch: Watch, start: float) -> str:
        """Waits until the child has ended, or says which limit it has reached."""
        deadline = start + self._rules.wall_s
        # One thread cannot use more CPU time than passes.
        look_at_cpu = start + self._rules.cpu_s
        while True:
            now = time.monotonic()
            if now >= deadline:
                return "wall"
            if now >= look_at_cpu:
                left = self._rules.cpu_s - watch.cpu_s()
                if left <= 0:
                    return "cpu"
                look_at_cpu = now + max(left, CPU_STEP_S)
            wait_ms = (min(deadline, look_at_cpu) - now) * 1e3
            if watch.wait(min(wait_ms + 0.5, IDLE_MS)):
                return ""
            if self._too_much(watch):
                return "output"
            self.check_host()

    def _too_much(self, watch: Watch) -> bool:
        return any(filled > cap for filled, cap in zip(watch.filled, self._caps, strict=True))


def kill(pid: int) -> None:
    """SIGKILL to the child and to its process group."""
    for send in (os.kill, os.killpg):
        try:
            send(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # gone already, or not yet the leader of its group


def clear_descendants() -> None:
    """Kills what the child left behind: with the subreaper set, it is this process's child now."""
    give_up = time.monotonic() + CLEANING_S
    while time.monotonic() < give_up:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for orphan in _children():
                kill(orphan)
            time.sleep(0.001)
    sys.exit("descendants of a program cannot be ended")


def _children() -> list[int]:
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children", "rb") as listed:
            return [int(word) for word in listed.read().split()]
    except FileNotFoundError:
        return []


def _cause_of(rc: int, cpu_s: float, most_cpu_s: float) -> str:
    by_code = {
        0: "done",
        frames.EXIT_MEMORY: "memory",
        frames.EXIT_POLICY: "policy",
        frames.EXIT_SETUP: "setup",
    }
    if rc >= 0:
        return by_code.get(rc, "exit")
    if rc == -signal.SIGSYS:
        return "syscall"
    if rc in (-signal.SIGKILL, -signal.SIGXCPU) and cpu_s >= most_cpu_s:
        return "cpu"
    return "signal"
