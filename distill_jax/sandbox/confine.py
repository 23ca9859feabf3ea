"""Confines this process for good: nobody, limits, no new privileges, Landlock, seccomp.

Loaded by workers that hold nothing else of the project: it imports only its neighbours `filter`
and `landlock`. What costs time (loading libc, assembling the filter) is done when the
Confinement is made, so that a fork pays for `apply` alone.
"""

import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Sequence

from distill_jax.sandbox import filter as allow_list
from distill_jax.sandbox import landlock as landlock_calls

NOBODY = 65534
STACK_BYTES = 8 << 20
OPEN_FILES = 16

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7
_LINUX = sys.platform == "linux"


class Confinement:
    """What `apply` will do to the process that calls it.

    Args:
        memory_bytes: address space of the process, the interpreter and its libraries included.
        cpu_s: CPU seconds until the kernel kills, rounded up to whole seconds; None: no limit.
        write_fds: descriptors that may still be written; all open ones may still be read.
        identity: become nobody, where this is root with the capabilities for it.
        limits: set the rlimits.
        landlock: deny all that Landlock handles, where the kernel has it.
        filter: install the seccomp allow-list. Only Linux has it.

    Raises:
        OSError: this processor's system calls are not known, so no filter can be made.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        cpu_s: float | None = None,
        write_fds: Sequence[int] = (1, 2),
        identity: bool = True,
        limits: bool = True,
        landlock: bool = True,
        filter: bool = True,
    ):
        self._libc = ctypes.CDLL(None, use_errno=True)
        if _LINUX:
            self._libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
        self._nobody = identity and can_become_nobody()
        self._limits = _rlimits(memory_bytes, cpu_s) if limits else {}
        self._ruleset = b""
        self._program: allow_list.Program | None = None
        if not _LINUX:
            return
        version = landlock_calls.abi(self._libc) if landlock else 0
        if version:
            self._ruleset = landlock_calls.ruleset(version)
        if filter:
            machine = os.uname().machine
            if machine not in allow_list.ARCHITECTURES or sys.maxsize < 2**32:
                raise OSError(f"no table of system calls for {machine}")
            self._program = allow_list.Program.of(allow_list.assemble(machine, write_fds))

    def apply(self, parent: int | None = None) -> None:
        """Confines this process. There is no way back.

        Args:
            parent: process id of the parent; this process dies with it (with the thread of it
                that forked). None: it lives on.

        Raises:
            OSError: the kernel refused a step; the process must end and run nothing.
        """
        if self._nobody:
            os.setgroups([])
            os.setgid(NOBODY)  # as root these two set the real, effective and saved ids
            os.setuid(NOBODY)
        self._set_limits()
        if not _LINUX:
            return
        if parent is not None:  # a change of user clears the death signal, so it comes after
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                raise OSError("the parent ended first")
        self._prctl(_PR_SET_DUMPABLE, 0)
        self._prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset:
            landlock_calls.restrict(self._libc, self._ruleset)
        if self._program is not None:
            self._prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(self._program))

    def _prctl(self, option: int, first: int, second: int = 0) -> None:
        if self._libc.prctl(option, first, second, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")

    def _set_limits(self) -> None:
        for which, value in self._limits.items():
            try:
                resource.setrlimit(which, (value, value))
            except (OSError, ValueError):
                if _LINUX:  # other systems refuse some of them
                    raise


def can_become_nobody() -> bool:
    """Whether this is root and may take nobody's identity, and still end a process that has it."""
    if os.geteuid() != 0:
        return False
    if not _LINUX:
        return True
    with open("/proc/self/status", "rb") as status:
        words = dict(line.split(b":", 1) for line in status.read().splitlines() if b":" in line)
    capabilities = int(words[b"CapEff"], 16)
    if not all(capabilities >> cap & 1 for cap in (_CAP_KILL, _CAP_SETGID, _CAP_SETUID)):
        return False
    return all(_maps_nobody(f"/proc/self/{name}") for name in ("uid_map", "gid_map"))


def _maps_nobody(path: str) -> bool:
    with open(path, "rb") as ranges:
        spans = [[int(word) for word in line.split()] for line in ranges]
    return any(first <= NOBODY < first + count for first, _, count in spans)


def _rlimits(memory_bytes: int, cpu_s: float | None) -> dict[int, int]:
    wanted = {
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_STACK": STACK_BYTES,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if cpu_s is not None:
        wanted["RLIMIT_CPU"] = math.ceil(cpu_s) + 1  # a backstop: the supervisor counts finer
    there = {getattr(resource, name): n for name, n in wanted.items() if hasattr(resource, name)}
    return {which: _at_most_hard(which, value) for which, value in there.items()}


def _at_most_hard(which: int, value: int) -> int:
    """A limit cannot be raised over the one inherited."""
    _, hard = resource.getrlimit(which)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
