"""Numbers of the system calls that the filter names, for each architecture.

Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from typing import NamedTuple


class Architecture(NamedTuple):
    """The word that seccomp calls it by, and the numbers of its system calls by name."""

    audit: int
    numbers: dict[str, int]


# Name, number on x86_64, and number on aarch64 where it has the call.
_TABLE = """
    read 0 63, write 1 64, close 3 57, fstat 5 80, lseek 8 62, mmap 9 222, mprotect 10 226,
    munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
    ioctl 16 29, readv 19 65, writev 20 66, sched_yield 24 124, mremap 25 216, madvise 28 233,
    dup 32 23, nanosleep 35 101, getitimer 36 102, setitimer 38 103, getpid 39 172, exit 60 93,
    uname 63 160, fcntl 72 25, truncate 76 45, ftruncate 77 46, getcwd 79 17, chdir 80 49,
    fchdir 81 50, fchmod 91 52, fchown 93 55, umask 95 166, gettimeofday 96 169,
    getrlimit 97 163, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174,
    getgid 104 176, geteuid 107 175, getegid 108 177, getppid 110 173, getpgid 121 155,
    getsid 124 156, sigaltstack 131 132, statfs 137 43, fstatfs 138 44, getpriority 140 141,
    prctl 157 167, setrlimit 160 164, gettid 186 178, futex 202 98, sched_getaffinity 204 123,
    getdents64 217 61, restart_syscall 219 128, clock_gettime 228 113, clock_getres 229 114,
    clock_nanosleep 230 115, exit_group 231 94, openat 257 56, mkdirat 258 34, mknodat 259 33,
    fchownat 260 54, newfstatat 262 79, unlinkat 263 35, renameat 264 38, linkat 265 37,
    symlinkat 266 36, readlinkat 267 78, fchmodat 268 53, faccessat 269 48, utimensat 280 88,
    dup3 292 24, pipe2 293 59, prlimit64 302 261, renameat2 316 276, getrandom 318 278,
    pkey_mprotect 329 288, statx 332 291, openat2 437 437, faccessat2 439 439,
    open 2, stat 4, lstat 6, access 21, pipe 22, dup2 33, alarm 37, getdents 78, rename 82,
    mkdir 83, rmdir 84, creat 85, link 86, unlink 87, symlink 88, readlink 89, chmod 90,
    chown 92, lchown 94, getpgrp 111, utime 132, mknod 133, arch_prctl 158, time 201,
    utimes 235
"""
_ROWS = [row.split() for row in _TABLE.split(",")]
X86_64 = Architecture(0xC000003E, {name: int(number) for name, number, *_ in _ROWS})
AARCH64 = Architecture(0xC00000B7, {row[0]: int(row[2]) for row in _ROWS if len(row) == 3})
