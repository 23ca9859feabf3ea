"""The process that forks a child per program: preloads, tells the host it is ready, serves.

Started as `python -s -P -S boot.py distill_jax.sandbox.zygote key=value...` with no descriptors
but its socket. It runs no program's code itself.
"""

import ctypes
import gc
import os
import select
import signal
import sys

from distill_jax.sandbox import child, frames, preload
from distill_jax.sandbox.confine import Confinement
from distill_jax.sandbox.supervisor import IDLE_MS, HostGone, Rules, Supervisor

_PR_SET_CHILD_SUBREAPER = 36
_MADV_COLLAPSE = 25
_HUGE_PAGE = 2 << 20


def main(arguments: list[str]) -> None:
    """Serves until the host hangs up."""
    given = dict(argument.split("=", 1) for argument in arguments)
    host = _take_socket()
    _own_signals()
    with _Reported(host):
        supervisor = _prepare(given, host)
    _send(host, frames.reply(0, frames.Outcome(frames.READY, 0, 0, 0, 0, b"", b"")))
    try:
        while True:
            _serve(supervisor, host)
    except (HostGone, ConnectionError):
        return


class _Reported:
    """Tells the host why the start failed; nobody reads the zygote's standard error."""

    def __init__(self, host: int):
        self._host = host

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
            failed = frames.Outcome(frames.FAILED, 1, 0, 0, 0, b"", text)
            _send(self._host, frames.reply(0, failed))


def _prepare(given: dict[str, str], host: int) -> Supervisor:
    gc.disable()  # later it would write to every page that forks share; now it takes a second
    if given["path"]:
        sys.path += given["path"].split(os.pathsep)
    preload.everything(sympy=given["kind"] == "sympy")
    child.prepare()
    child.warm_up()
    layers = given["layers"].split(",")
    confinement = Confinement(
        memory_bytes=int(given["memory_mb"]) << 20,
        cpu_s=float(given["cpu_s"]),
        write_fds=(1, 2),
        **{name: name in layers for name in ("identity", "limits", "landlock", "filter")},
    )
    rules = Rules(
        float(given["wall_s"]),
        float(given["cpu_s"]),
        int(given["output_bytes"]),
        int(given["program_bytes"]),
    )
    supervisor = Supervisor(host, rules, confinement)
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        _adopt_orphans()
        _be_first_to_die()
        _use_huge_pages()
    return supervisor


def _serve(supervisor: Supervisor, host: int) -> None:
    """One request, one reply."""
    waiting = select.poll()
    waiting.register(host, select.POLLIN)
    while not waiting.poll(IDLE_MS):
        supervisor.check_host()
    number, flags, length = frames.REQUEST.unpack(_read_exactly(host, frames.REQUEST.size))
    done = 0
    while done < length:
        count = os.readv(host, [supervisor.program[done:length]])
        if count == 0:
            raise HostGone
        done += count
    found = supervisor.run(length, syntax=not flags & frames.SKIP_SYNTAX)
    _send(host, frames.reply(number, found))


def _read_exactly(fd: int, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = os.read(fd, size - len(got))
        if not more:
            raise HostGone
        got += more
    return got


def _send(fd: int, parts: list[bytes | memoryview]) -> None:
    rest = [memoryview(part) for part in parts if len(part)]
    while rest:
        count = os.writev(fd, rest)
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if count:
            rest[0] = rest[0][count:]


def _take_socket() -> int:
    """Moves the host's socket away from 0, where the children's programs will come in."""
    host = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    return host


def _own_signals() -> None:
    """Undoes what was inherited: a host may ignore SIGCHLD or block signals."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # kept by the C library
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def _be_first_to_die() -> None:
    """Short of memory, the kernel should take a program, never the trainer."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")
    except OSError:
        pass  # only a preference


def _use_huge_pages() -> None:
    """Gathers the heap in huge pages: a fork copies one entry of the page table for 512.

    Only a matter of speed, so what the kernel refuses is left as it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        regions = [line.split() for line in maps]
    for span, mode, *rest in regions:
        first, last = (int(word, 16) for word in span.split("-"))
        anonymous = len(rest) == 3 or rest[3] == "[heap]"
        if mode.startswith("rw-p") and anonymous and last - first >= _HUGE_PAGE:
            libc.madvise(first, last - first, _MADV_COLLAPSE)
