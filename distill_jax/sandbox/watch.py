"""One running child: program in, output back, its CPU time and its end, polled together."""

import os
import select
import time

# For this long output wakes nobody: most programs end within it, their output stays in the pipe,
# and a switch between processes costs more than they do.
QUIET_MS = 3.0


class HostGone(Exception):
    """The host hung up or ended: nobody waits for a result."""


class Watch:
    """What the zygote holds of one child.

    Args:
        host: the host's socket, watched for hanging up only.
        entry: the writing end of the pipe that the program goes into.
        outputs: the reading ends of stdout and stderr; their bytes go into the buffers.
    """

    def __init__(
        self,
        pid: int,
        host: int,
        program: memoryview,
        entry: int,
        outputs: tuple[int, int],
        buffers: list[memoryview],
    ):
        self._pid, self._host, self._entry = pid, host, entry
        self._outputs, self._buffers = outputs, buffers
        self.filled = [0, 0]
        self._rest = program
        self._process = _open_process(pid)
        self._poll = select.poll()
        self._poll.register(host, 0)  # hanging up is always reported
        self._open = {*outputs, entry}
        for fd in self._open:
            os.set_blocking(fd, False)
        self._listening = False
        self._send()
        if self._process >= 0:
            self._poll.register(self._process, select.POLLIN)
        if self._process < 0 or self._rest:
            self._listen()

    def cpu_s(self) -> float:
        """CPU time of the child until now; 0 where the system does not tell."""
        try:
            # The clock of a process: man 3 clock_getcpuclockid, kernel's posix-timers.h.
            return time.clock_gettime((~self._pid << 3) | 2)
        except OSError:
            return 0.0

    def wait(self, most_ms: float) -> bool:
        """Moves bytes until something happened or the time is over; whether the child ended."""
        if not self._listening:
            if found := self._poll.poll(min(most_ms, QUIET_MS)):
                if found[0][0] == self._host:
                    raise HostGone
                return True
            self._listen()
            return False
        if self._process < 0 and not self._open:
            most_ms = min(most_ms, 1.0)  # only asking tells that it has ended
        for fd, event in self._poll.poll(most_ms):
            if fd == self._host:
                raise HostGone
            if fd == self._process:
                return True
            if fd == self._entry:
                self._send()
            elif event:
                self._receive(self._outputs.index(fd))
        return self._process < 0 and not self._open and _has_ended(self._pid)

    def drain(self) -> None:
        """Reads what the child wrote before it ended."""
        for i, fd in enumerate(self._outputs):
            while fd in self._open and self._receive(i):
                pass

    def close(self) -> None:
        """Closes every descriptor of the child."""
        for fd in (*self._open, self._process):
            if fd >= 0:
                os.close(fd)
        self._open = set()

    def _listen(self) -> None:
        self._listening = True
        for fd in self._open:
            self._poll.register(fd, select.POLLOUT if fd == self._entry else select.POLLIN)

    def _send(self) -> None:
        try:
            self._rest = self._rest[os.write(self._entry, self._rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = self._rest[:0]
        if not self._rest:
            self._forget(self._entry)

    def _receive(self, i: int) -> bool:
        """Reads once; whether there may be more, and room for it."""
        try:
            count = os.readv(self._outputs[i], [self._buffers[i][self.filled[i] :]])
        except BlockingIOError:
            return False
        self.filled[i] += count
        if count == 0:
            self._forget(self._outputs[i])
        return count > 0 and self.filled[i] < len(self._buffers[i])

    def _forget(self, fd: int) -> None:
        if self._listening:
            self._poll.unregister(fd)
        self._open.discard(fd)
        os.close(fd)


def _open_process(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 where there is none."""
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
