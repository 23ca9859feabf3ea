"""The seccomp allow-list: which system calls a confined process keeps, as BPF.

Every call that is not named here kills the process. This module imports only `syscalls.py`, so
that a `python -I` worker can load it.
Source: Linux, Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/seccomp.h.
"""

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from distill_jax.sandbox.syscalls import AARCH64, X86_64

# os.uname says arm64 on some systems.
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}

KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS: SIGSYS that no handler sees
ALLOW = 0x7FFF0000
ERRNO = 0x00050000  # | errno

# Computing, memory, time, and leaving: nothing that reaches another object of the kernel.
ALLOWED = (
    "read readv close lseek fstat brk munmap mremap madvise "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall exit exit_group "
    "sched_yield nanosleep gettimeofday time times "
    "getrandom getpid gettid getuid geteuid getgid getegid getrusage getrlimit"
).split()
# Library code tries these and goes on when it is refused: an error, so that it may.
NO_ACCESS = (
    "open openat openat2 creat stat lstat newfstatat statx statfs fstatfs access faccessat "
    "faccessat2 readlink readlinkat getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir "
    "unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mknod mknodat chmod "
    "fchmod fchmodat chown fchown lchown fchownat truncate ftruncate utime utimes utimensat"
).split()
NOT_PERMITTED = (
    "umask fcntl dup dup2 dup3 prctl arch_prctl uname sysinfo getppid getpgid getpgrp getsid "
    "getpriority sched_getaffinity setrlimit alarm setitimer getitimer pipe pipe2"
).split()
NOT_A_TERMINAL = ["ioctl"]
TO_RESULTS = ["write", "writev"]  # only to the descriptors given
NOT_EXECUTABLE = ["mmap", "mprotect", "pkey_mprotect"]  # only without PROT_EXEC
OWN_LIMITS = ["prlimit64"]  # only reading, only one's own
# Only the clocks that all share: other numbers are CPU clocks of processes, anybody's.
CLOCKS = ["clock_gettime", "clock_getres", "clock_nanosleep"]
# Only waiting and waking inside this process: with priority inheritance (FUTEX_LOCK_PI) a word in
# memory names a process, which the call tells of and gives its own priority to.
LOCKS = ["futex"]
_MOST_CLOCK = 11  # CLOCK_TAI, linux/time.h
_PRIVATE, _REALTIME = 128, 256  # linux/futex.h
_WAIT, _WAKE, _WAIT_BITSET, _WAKE_BITSET = 0, 1, 9, 10
LOCK_OPERATIONS = [
    *(operation | _PRIVATE for operation in (_WAIT, _WAKE, _WAIT_BITSET, _WAKE_BITSET)),
    *(operation | _PRIVATE | _REALTIME for operation in (_WAIT, _WAIT_BITSET)),
]

_PROT_EXEC = 4
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data


class Instruction(NamedTuple):
    """One struct sock_filter."""

    code: int
    jump_true: int
    jump_false: int
    k: int


def assemble(architecture: str, write_fds: Sequence[int]) -> list[Instruction]:
    """Builds the filter for a key of ARCHITECTURES and the descriptors that may be written.

    The architecture word comes first: the numbers of another one mean other calls. Then a binary
    search over ranges of numbers with equal action, because the kernel runs the filter once for
    every number when it is installed. x32 numbers (from 0x40000000) fall in the last range, which
    kills.
    """
    table = ARCHITECTURES[architecture]
    ranges = _ranges({table.numbers[n]: b for n, b in _bodies(write_fds) if n in table.numbers})
    return [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_EQUAL, 1, 0, table.audit),
        _give(KILL),
        Instruction(_LOAD, 0, 0, _NUMBER),
        *_search(ranges),
    ]


def pack(program: Iterable[Instruction]) -> bytes:
    """The bytes of an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class Program(ctypes.Structure):
    """struct sock_fprog: keeps its instructions alive."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    @classmethod
    def of(cls, program: Sequence[Instruction]) -> "Program":
        """The program as prctl(PR_SET_SECCOMP) wants it."""
        return cls(len(program), pack(program))


def _bodies(write_fds: Sequence[int]) -> list[tuple[str, list[Instruction]]]:
    groups = [
        (ALLOWED, [_give(ALLOW)]),
        (NO_ACCESS, [_give(ERRNO | errno.EACCES)]),
        (NOT_PERMITTED, [_give(ERRNO | errno.EPERM)]),
        (NOT_A_TERMINAL, [_give(ERRNO | errno.ENOTTY)]),
        (TO_RESULTS, _only(0, write_fds, _give(ERRNO | errno.EPERM))),
        (CLOCKS, _refused_if(0, _AT_LEAST, _MOST_CLOCK + 1, errno.EINVAL)),
        (LOCKS, _only(1, LOCK_OPERATIONS, _give(KILL))),
        (NOT_EXECUTABLE, _refused_if(2, _ANY_BIT, _PROT_EXEC, errno.EACCES)),
        (OWN_LIMITS, _own_limits()),
    ]
    return [(name, body) for names, body in groups for name in names]


def _give(action: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, action)


def _argument(index: int, *, high: bool = False) -> Instruction:
    """Half of an argument; both architectures are little endian."""
    return Instruction(_LOAD, 0, 0, _ARGS + 8 * index + (4 if high else 0))


def _only(index: int, values: Sequence[int], otherwise: Instruction) -> list[Instruction]:
    # The kernel takes descriptors and operations as 32 bits, so the low half says all.
    tests = [Instruction(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, otherwise, _give(ALLOW)]


def _refused_if(index: int, test: int, value: int, error: int) -> list[Instruction]:
    return [_argument(index), Instruction(test, 0, 1, value), _give(ERRNO | error), _give(ALLOW)]


def _own_limits() -> list[Instruction]:
    return [
        _argument(0),  # pid: 0 is oneself
        Instruction(_EQUAL, 0, 4, 0),
        _argument(2),  # new limit: a null pointer only reads
        Instruction(_EQUAL, 0, 2, 0),
        _argument(2, high=True),
        Instruction(_EQUAL, 1, 0, 0),
        _give(ERRNO | errno.EPERM),
        _give(ALLOW),
    ]


def _ranges(bodies: dict[int, list[Instruction]]) -> list[tuple[int, list[Instruction]]]:
    """(first number, body) of each run of numbers with one action, over all numbers."""
    ends = {n + 1 for n in bodies}
    ranges: list[tuple[int, list[Instruction]]] = []
    for start in sorted({0, *bodies, *ends}):
        body = bodies.get(start, [_give(KILL)])
        if not ranges or ranges[-1][1] != body:
            ranges.append((start, body))
    return ranges


def _search(ranges: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    assert len(low) < 256, "a jump of BPF has eight bits"
    return [Instruction(_AT_LEAST, len(low), 0, ranges[middle][0]), *low, *high]
